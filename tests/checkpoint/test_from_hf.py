"""Public models come in and go out unchanged."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import torch

from tests.support.public_models import MODELS, save_public_model
from tests.support.ranks import launch


def equal_both_ways(rank: int, name: str, tmp_path: Path) -> None:
    """In, and out again: logits agree, and every tensor is what it was to the last bit."""
    from safetensors.torch import load_file

    from tools import convert_checkpoint as tool

    theirs = save_public_model(name, tmp_path / "theirs")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert tool.import_folder(theirs, tmp_path / "ours") == 0, said.getvalue()
        assert tool.export(tmp_path / "ours", tmp_path / "again") == 0, said.getvalue()
    assert said.getvalue().count("logits equal") == 2
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("theirs", "again"))
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key


@pytest.mark.parametrize("name", MODELS)
def test_a_round_trip_is_exact(name: str, tmp_path: Path) -> None:
    launch(equal_both_ways, 1, 90.0, tmp_path, {"name": name})
