"""What really ran under the names of the papers' models and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_distill.config.model import ModelConfig

from .drawing import short
from .experiments import Measurement, Study
from .records import RunRecord
from .setting import HALF

_ENOUGH = 0.9
"""A run of this share of the papers' parameters and tokens is the papers' and no stand-in."""
_COMPRESSION_TOKENS = 20e9


@dataclass(frozen=True)
class StandIn:
    """Runs of one model and budget, beside what the papers had."""

    name: str
    parameters: tuple[int, int]
    """Fewest and most of the runs."""
    paper_parameters: int
    """Of the whole model; compressed ones have fewer in both."""
    tokens: tuple[int, int]
    paper_tokens: float
    shapes: tuple[str, ...]
    texts: tuple[str, ...]
    devices: tuple[str, ...]
    runs: int

    @property
    def is_smaller(self) -> bool:
        """Whether this is less than what its name says."""
        parameters = self.parameters[1] < _ENOUGH * self.paper_parameters
        return self.tokens[0] < _ENOUGH * self.paper_tokens or (parameters and "compressed" not in self.name)

    @property
    def is_mixed(self) -> bool:
        """Whether unequal models, texts or budgets share the name."""
        return len(self.shapes) > 1 or len(self.texts) > 1 or self.tokens[0] != self.tokens[1]


def stand_ins(study: Study) -> list[StandIn]:
    """One for each pretrained model and budget, one for what was compressed from each model."""
    groups: dict[str, list[Measurement]] = {}
    for setting, measurements in study.measured.items():
        kind = f"pretrained on {setting.checkpoint} tokens" if setting.layout is None else "compressed on 20B tokens"
        groups.setdefault(f"{setting.model} {kind}", []).extend(m for m in measurements if m.final)
    order = sorted(groups, key=lambda name: (_size(name), "compressed" in name, _budget(name)))
    return [_stand_in(name, groups[name]) for name in order if groups[name]]


def sentence(found: Sequence[StandIn]) -> str:
    """What a reader must know before all numbers; empty if the papers' own sizes ran."""
    if not found:
        return "No run says which of the papers' experiments it stands for: give runs a --label (docs/report.md)."
    mixed = [s.name for s in found if s.is_mixed]
    warning = f" Unequal runs share the name {mixed[0]}: give them to reports of their own." if mixed else ""
    smaller = [s for s in found if s.is_smaller]
    if not smaller:
        return warning.strip()
    first = max(smaller, key=lambda s: (s.name.split()[0] in HALF, s.paper_parameters, s.paper_tokens))
    name = first.name.partition(" ")[0]
    return (
        f"These are small runs that stand for big ones. What is called {name} here has {first.parameters[1]:,} "
        f"parameters and not {first.paper_parameters:,}; {first.name.partition(' ')[2]} means {first.tokens[1]:,} "
        "tokens. Perplexities are of other text with another tokenizer: compare the ratio to the model before, signs "
        f"and order, not absolute values.{warning}"
    )


def _stand_in(name: str, measurements: Sequence[Measurement]) -> StandIn:
    runs = [m.run for m in measurements]
    setting = measurements[0].setting
    parameters, tokens = ([run.result[key] for run in runs] for key in ("parameters", "tokens"))
    budget = _COMPRESSION_TOKENS if setting.layout else float(setting.checkpoint.removesuffix("B")) * 1e9
    return StandIn(
        name=name,
        parameters=(min(parameters), max(parameters)),
        paper_parameters=ModelConfig(model=f"palm-{setting.model.lower()}-paper").shape().num_parameters(),
        tokens=(min(tokens), max(tokens)),
        paper_tokens=budget,
        shapes=tuple(sorted({_shape(run) for run in runs})),
        texts=tuple(sorted({_text(run) for run in runs})),
        devices=tuple(sorted({str(run.run.get("device", "unknown")) for run in runs})),
        runs=len(runs),
    )


def rows(found: Sequence[StandIn]) -> list[tuple[str, ...]]:
    """As text, with a header."""
    head = ("name here", "parameters", "in the paper", "tokens", "in the paper", "shape", "text", "device", "runs")
    lines: list[tuple[str, ...]] = [head]
    return lines + [
        (
            s.name,
            "–".join(f"{n:,}" for n in dict.fromkeys(s.parameters)),
            "about half" if "compressed" in s.name else f"{s.paper_parameters:,}",
            "–".join(f"{n:,}" for n in dict.fromkeys(s.tokens)),
            short(s.paper_tokens),
            "; ".join(s.shapes),
            "; ".join(s.texts),
            ", ".join(s.devices),
            str(s.runs),
        )
        for s in found
    ]


def _shape(run: RunRecord) -> str:
    shape = run.run["shape"]
    return f"{shape['num_layers']} layers × {shape['hidden_size']}"


def _text(run: RunRecord) -> str:
    data = run.run["config"].get("data", {})
    corpora = data.get("data_path") or ()
    names = [Path(path).name for path in ([corpora] if isinstance(corpora, str) else corpora)]
    vocabulary, window = run.run["shape"].get("vocab_size"), data.get("seq_length")
    return f"{', '.join(names)}, {vocabulary or 0:,} token types, windows of {window or 0:,}"


def _size(name: str) -> float:
    model = name.partition(" ")[0]
    return float(model[:-1]) * (1000 if model.endswith("B") else 1)


def _budget(name: str) -> int:
    return int(name.split()[-2].removesuffix("B"))
