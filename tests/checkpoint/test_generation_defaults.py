"""What a public model says about generating text, read from its two files as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_distill.checkpoint.generation_defaults import GenerationDefaults


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({"eos_token_id": 2}, None, (2,)),
        ({"eos_token_id": 0}, {}, (0,)),
        ({"eos_token_id": 2}, {"eos_token_id": [5, 7, 3]}, (5, 7, 3)),
        ({"eos_token_id": [4, 6]}, {"eos_token_id": None}, (4, 6)),
        ({"eos_token_id": None}, None, ()),
        ({}, None, ()),
    ],
)
def test_every_token_that_ends_a_text_counts(
    config: dict[str, Any], generation: dict[str, Any] | None, ends: tuple[int, ...], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    read = GenerationDefaults.read(tmp_path)
    assert read.end_ids == ends
    assert GenerationDefaults.from_manifest(json.loads(json.dumps(read.to_manifest()))).end_ids == ends
