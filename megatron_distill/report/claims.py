"""What the papers say in words (arXiv:2305.14864, v1 and v2), as comparisons of perplexities that runs can confirm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .quantities import PERPLEXITY, PERPLEXITY_RATIO, Quantity
from .setting import GAPS, HALF, METHOD_NAMES, Setting, base, compressed, main_v1, main_v2
from .sweeps import HOW_MUCH, WHERE_V1, WHERE_V2, Series


@dataclass(frozen=True)
class Pair:
    """Two models of which the paper says that the first has less of the quantity."""

    about: str
    """What both share, such as the model that they came from."""
    first: tuple[str, Setting]
    second: tuple[str, Setting]
    quantity: Quantity = PERPLEXITY


@dataclass(frozen=True)
class Claim:
    """One sentence of ours for one of theirs."""

    text: str
    source: str
    """Version and section or table."""
    pairs: tuple[Pair, ...]
    """What must hold of each for the claim to hold."""


def all_claims() -> list[Claim]:
    """In the order of the page."""
    return [
        Claim(
            "Training without a teacher is no worse than any distillation.", "v1 and v2, 5.1", tuple(_teacher_free())
        ),
        Claim("Vanilla distillation beats miniLM, and miniLM beats homotopic.", "v2, Table 3", tuple(_methods())),
        Claim("Layers near the output are the worst to remove.", "v1, 5.3; v2, 5.2", tuple(_output_worst())),
        Claim("One by one is never better than all at once.", "v1, 5.2; v2, 5.3", tuple(_at_once())),
        Claim("The more layers leave, the more is lost.", "v1, 5.4", tuple(_layers_removed())),
        Claim("The more tokens a model has seen, the more it loses.", "v1, 5.4", tuple(_tokens_seen())),
        Claim("The larger the model, the less it loses.", "v1, 5.4", tuple(_model_size())),
        Claim("More weight on distillation hurts.", "v2, 5.4", tuple(_weights())),
        Claim("Without the language-model loss perplexity suffers.", "v2, 5.5", tuple(_no_lm())),
        Claim("Compressed on 20B beats half the size from scratch on 20B.", "v2, 6", tuple(_half_at_20b())),
        Claim("Half the size from scratch on 160B beats compressed on 20B.", "v2, 6", tuple(_half_at_160b())),
    ]


def close_layouts() -> Iterator[tuple[str, dict[str, Setting]]]:
    """(what is removed, max-gap, input, both and output): the first three are said to lie close together."""
    for series in _where():
        yield series.label, {name: series.settings[name] for name in ("max-gap", "input", "both", "output")}


def _teacher_free() -> Iterator[Pair]:
    for model in HALF:
        for method in ("vanilla", "minilm", "homotopic"):
            yield Pair(model, _named(model, "none"), _named(model, method))
    teacher_free, vanilla = ((METHOD_NAMES[method], main_v1("300M", method)) for method in ("none", "vanilla"))
    yield Pair("300M-320B", teacher_free, vanilla)  # v1's 1.1B is v2's


def _methods() -> Iterator[Pair]:
    for model in HALF:
        for one, other in (("vanilla", "minilm"), ("minilm", "homotopic")):
            yield Pair(model, _named(model, one), _named(model, other))


def _named(model: str, method: str) -> tuple[str, Setting]:
    return METHOD_NAMES[method], main_v2(model, method)


def _where() -> Iterator[Series]:
    """The comparisons of layouts; v1's of 12 removed layers has no output, v2 has all five."""
    yield from WHERE_V2.series
    yield from (series for series in WHERE_V1.series if series.settings["output"].removed == 8)


def _output_worst() -> Iterator[Pair]:
    for series in _where():
        output = series.settings["output"]
        for name, setting in series.settings.items():
            if setting.layout not in (None, "output"):
                about = f"{output.model}-{output.checkpoint}, {output.removed} removed"
                yield Pair(about, (name, setting), ("output", output))


def _at_once() -> Iterator[Pair]:
    for setting in (main_v2("300M"), main_v2("1.1B"), *(compressed("300M", c, "input", 8) for c in ("80B", "320B"))):
        for gap in GAPS[1:]:
            about = f"{setting.model}-{setting.checkpoint}, {setting.removed} removed"
            yield Pair(about, ("at once", setting), (f"{gap} apart", replace(setting, gap=gap)))


def _layers_removed() -> Iterator[Pair]:
    for series in HOW_MUCH.series:
        removed = list(series.settings.items())
        for one, other in zip(removed, removed[1:], strict=False):
            yield Pair(series.label, one, other)


def _tokens_seen() -> Iterator[Pair]:
    for model, checkpoints in (("300M", ("40B", "80B", "160B", "320B")), ("1.1B", ("40B", "80B", "160B"))):
        for removed in (4, 8, 12):
            seen = [(checkpoint, compressed(model, checkpoint, "input", removed)) for checkpoint in checkpoints]
            for one, other in zip(seen, seen[1:], strict=False):
                yield Pair(f"{model}, {removed} removed", one, other, PERPLEXITY_RATIO)


def _model_size() -> Iterator[Pair]:
    for checkpoint in ("40B", "80B", "160B"):
        for removed in (4, 8, 12):
            large, small = ((m, compressed(m, checkpoint, "input", removed)) for m in ("1.1B", "300M"))
            yield Pair(f"{checkpoint}, {removed} removed", large, small, PERPLEXITY_RATIO)


def _weights() -> Iterator[Pair]:
    for model in HALF:
        settings = [(f"λ = {w:g}", replace(main_v2(model, "vanilla"), weight=w)) for w in (1.0, 2.0, 4.0, 8.0)]
        for one, other in zip(settings, settings[1:], strict=False):
            yield Pair(model, one, other)


def _no_lm() -> Iterator[Pair]:
    for model in HALF:
        for method in ("minilm", "homotopic"):
            name, setting = _named(model, method)
            yield Pair(model, (name, setting), (f"{name} without LM loss", replace(setting, lm_weight=0.0)))


def _half_at_20b() -> Iterator[Pair]:
    for model, half in HALF.items():
        yield Pair(model, ("compressed", main_v2(model)), (f"{half} @ 20B", base(half, "20B")))


def _half_at_160b() -> Iterator[Pair]:
    for model, half in HALF.items():
        yield Pair(model, (f"{half} @ 160B", base(half)), ("compressed", main_v2(model)))
