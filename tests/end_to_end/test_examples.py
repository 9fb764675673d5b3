"""A script of the papers on two data-parallel ranks without a GPU: it pretrains, saves, loads and compresses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from megatron_distill.checkpoint.manifest import read_latest
from tests.support.runs import ROOT, environment


def test_the_papers_model_is_compressed_on_two_ranks(corpus: Path, bpe_file: Path, tmp_path: Path) -> None:
    given = {"DATA": str(corpus), "TOKENIZER": str(bpe_file), "RUNS": str(tmp_path), "TASKS": "", "REPORT": "0"}
    given |= {"NO_VENV": "1", "GPUS": "2", "SCALE": "tiny", "FLAVOUR": "-paper"}
    flags = ["--train-iters", "6", "--eval-interval", "6", "--save-interval", "4"]
    done = subprocess.run(
        ["bash", str(ROOT / "examples/compress/300m.sh"), *flags],
        env={k: v for k, v in environment().items() if k not in os.environ or k not in given} | given,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, layers in (("300m-160B", 24), ("300m-160B.max-gap-12", 12)):
        run = tmp_path / "tiny" / name
        newest = read_latest(run)
        assert newest is not None and (newest[1].iteration, len(newest[1].layers)) == (6, layers)
        assert json.loads((run / "run.json").read_text())["layout"]["data"] == 2
        assert newest[1].shape.qk_layernorm == "full"
