"""A public model comes in, loses layers, and goes out: for every family, on one rank and under tensor parallelism."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cluster import forked
from tests.support.public_models import MODELS, save_public_model
from tests.support.ranks import launch
from tests.support.runs import SMALL
from tests.support.tools import run_tool

GENERATION = {"bos_token_id": 1, "eos_token_id": [2, 3, 7], "pad_token_id": 5, "do_sample": True, "temperature": 0.6}
LAYOUTS = {"one rank": (1, []), "tensor parallel": (2, ["--tensor-model-parallel-size", 2, "--sequence-parallel"])}


def make(rank: int, name: str, tmp_path: Path) -> None:
    folder = save_public_model(name, tmp_path / "theirs")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))


FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "opt", "gpt_neox", "palm")
# Each on two ranks, where more can go wrong; two of them on one rank as well.
CASES = [(name, "tensor parallel") for name in FAMILIES] + [(name, "one rank") for name in ("llama", "gpt2")]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_compress_a_public_model(name: str, layout: str, corpus: Path, tmp_path: Path) -> None:
    launch(make, 1, 60.0, tmp_path, {"name": name})
    run_tool("convert_checkpoint", "from-hf", tmp_path / "theirs", tmp_path / "ours")
    size, flags = LAYOUTS[layout]
    codes, said = forked(
        *(*SMALL, "--load", tmp_path / "ours", "--data-path", corpus, "--save", tmp_path / "run", "--train-iters", 6),
        *("--pruning-layout", "1,2", "--pruning-seed-tokens", 256, *flags),
        ranks=size,
    )
    assert codes == [0] * size, said[-3000:]
    done = run_tool("convert_checkpoint", "to-hf", tmp_path / "run", tmp_path / "out")
    assert "logits equal" in done.stdout
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == GENERATION
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.get("num_hidden_layers", config.get("n_layer")) == 2
    assert config["model_type"] == MODELS[name][0]
