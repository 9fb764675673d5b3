"""A trained model by its path: which one is meant, and that it is what was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from megatron_distill.checkpoint.inference import find_model, inference_layout, load_for_inference, load_tokenizer_of
from megatron_distill.config.environment import JobPlace
from megatron_distill.config.error import ConfigError
from megatron_distill.parallel.worlds import Role, open_world
from tests.support.ranks import ranks


def test_the_newest_checkpoint_counts_in_a_run_that_holds_an_export(
    base_run: Path, readable_model: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(base_run, tmp_path / "run"))
    for path in readable_model.iterdir():
        shutil.copy(path, run)
    found = find_model(run)
    assert found.is_run and found.folder == run / "checkpoints" / "iter_0000030"
    assert not find_model(readable_model).is_run


def test_a_tokenizer_that_is_given_is_read_and_not_its_neighbour(readable_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(readable_model, tmp_path / "model"))
    other = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "layer": 1, "[UNK]": 2}, unk_token="[UNK]"))
    other.save(str(folder / "mine.json"))
    stored = find_model(folder)
    assert load_tokenizer_of(stored, folder / "mine.json")("layer", add_special_tokens=False)["input_ids"] == [1]
    own = load_tokenizer_of(stored, folder / "tokenizer.json")("layer")["input_ids"]
    assert own == load_tokenizer_of(stored)("layer")["input_ids"] != [1]


@ranks(1)
def test_every_byte_is_compared_before_it_is_used(rank: int, tmp_path: Path, base_run: Path) -> None:
    run = Path(shutil.copytree(base_run, tmp_path / "run"))
    stored = find_model(run)
    layout = inference_layout(stored, 1, 1, 1)
    largest = max(stored.folder.glob("*.distcp"), key=lambda path: path.stat().st_size)
    with open_world((Role("reader", layout),), place=JobPlace()):
        assert len(load_for_inference(stored, layout).layer_indices) == 6
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
        with pytest.raises(ConfigError, match=f"{largest.name} is not what was written"):
            load_for_inference(stored, layout)


@ranks(1)
def test_variables_of_a_job_do_not_make_a_lone_program_wait(rank: int, base_run: Path) -> None:
    """As in a shell within a job of two ranks: nobody else comes."""
    import os

    os.environ.update(WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    stored = find_model(base_run)
    layout = inference_layout(stored, 1, 1, 1)
    with open_world((Role("convert", layout),), place=JobPlace()):
        assert len(load_for_inference(stored, layout).layer_indices) == 6
