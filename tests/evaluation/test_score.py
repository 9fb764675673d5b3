"""Log-likelihoods against plain forward passes, on every layout."""

from __future__ import annotations

import os
import random

import pytest
import torch

from megatron_distill.evaluation.score import Score, Tokens, score
from tests.models.test_layouts import shape_of
from tests.support.ranks import launch
from tests.support.worlds import student_world

LAYOUTS = {"one": (1, 1, 1), "tp2": (2, 1, 1), "pp2": (1, 2, 1), "dp2": (1, 1, 2), "tp2-pp2": (2, 2, 1)}
MODELS = ["palm-tiny-paper", "gpt2", "qwen3"]
MAX_LENGTH = 48


def requests() -> list[tuple[Tokens, Tokens]]:
    """Contexts shared and not, continuations of one token and of many, texts that are too long, one asked twice."""
    generator = random.Random(0)

    def text(count: int) -> Tokens:
        return tuple(generator.choices(range(75), k=count))

    found = []
    for length in (3, 17, 30, 44):
        context = text(length)
        found += [(context, text(count)) for count in (1, 1, 4, 9)]
    found += [(text(1), text(count)) for count in (1, 5, 20)]
    found += [(text(60), text(5)), (text(10), text(48)), (text(2), text(60)), found[3]]
    generator.shuffle(found)
    return found


def directly(model: torch.nn.Module, context: Tokens, continuation: Tokens) -> Score:
    """By one pass as in training, over the last tokens that fit."""
    whole = (context + continuation)[-(MAX_LENGTH + 1) :]
    tokens = torch.tensor([whole[:-1]])
    positions = torch.arange(tokens.shape[1])[None]
    logits = model(tokens, positions, None)[0].log_softmax(-1)[-len(continuation) :]
    wanted = torch.tensor(whole[1:][-len(continuation) :])
    found = logits.gather(-1, wanted[:, None]).sum().item()
    return found, bool((logits.argmax(-1) == wanted).all())


def on_layout(rank: int, layout: str, wanted: dict[str, list[Score]]) -> None:
    from megatron_distill.config.run import Layout
    from megatron_distill.models.build import BuildOptions, build_decoder, initialise
    from megatron_distill.models.inference import reading

    tp, pp, dp = LAYOUTS[layout]
    for name in MODELS:
        os.environ["STORE_FILE"] += name
        with student_world(tp=tp, pp=pp):
            sizes = Layout(tensor=tp, pipeline=pp, data=dp, num_microbatches=1)
            shape = shape_of(name)
            model = build_decoder(shape, tuple(range(shape.num_layers)), sizes, BuildOptions(torch.float32, "sdpa"))
            initialise(model, seed=2)
            with reading(model) as inference:
                found = score(inference, requests(), MAX_LENGTH, 200)
                if layout == "one":
                    wanted[name] = [directly(model, *request) for request in requests()]
            for (value, likeliest), (expected, was) in zip(found, wanted[name], strict=True):
                assert abs(value - expected) < 2e-4, (name, value, expected)
                assert likeliest == was


def save(rank: int, tmp_path: object) -> None:
    wanted: dict[str, list[Score]] = {}
    on_layout(rank, "one", wanted)
    torch.save(wanted, f"{tmp_path}/wanted.pt")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Score]]:
    """Of one rank, which agree with plain passes."""
    folder = tmp_path_factory.mktemp("wanted")
    launch(save, 1, 60.0, folder, {})
    return torch.load(folder / "wanted.pt")


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one"])
def test_scores_are_those_of_plain_passes(layout: str, wanted: dict[str, list[Score]], tmp_path: object) -> None:
    tp, pp, dp = LAYOUTS[layout]
    launch(on_layout, tp * pp * dp, 60.0, tmp_path, {"layout": layout, "wanted": wanted})  # type: ignore[arg-type]
