"""Public models come in and go out unchanged."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_distill.checkpoint.from_hf import Source, import_model
from megatron_distill.config.error import ConfigError
from tests.support.public_models import MODELS, save_public_model
from tests.support.ranks import launch
from tests.support.tools import refusal


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


def save_all(rank: int, tmp_path: Path) -> None:
    save_public_model("llama", tmp_path / "whole")
    save_public_model("llama", tmp_path / "sharded", max_shard_size="100KB")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model in a file and in shards."""
    folder = tmp_path_factory.mktemp("saved")
    launch(save_all, 1, 60.0, folder, {})
    return folder


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def reshape_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(63)
    save_file(tensors, folder / "model.safetensors")


def add_a_tensor(folder: Path) -> None:
    save_file(load_file(folder / "model.safetensors") | {"model.extra": torch.zeros(2)}, folder / "model.safetensors")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


class Code:
    """A pickle of this creates a file when it is read."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.victim,)


def pickle_with_code(folder: Path) -> None:
    remove(folder, "model.safetensors")
    torch.save({"model.norm.weight": Code(folder / "hacked")}, folder / "pytorch_model.bin")


def old_pickle_with_code(folder: Path) -> None:
    remove(folder, "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Code(folder / "hacked")}))


FAULTS = {
    "no config": (partial(remove, name="config.json"), "is not a Hugging Face model: it has no config.json"),
    "no weights": (partial(remove, name="model.safetensors"), "has no weights"),
    "unknown": (partial(edit_config, model_type="lama"), "model_type lama, which is not known; did you mean llama?"),
    "no sizes": (partial(edit_config, hidden_size=None), "config.json has no hidden_size"),
    "bad size": (partial(edit_config, num_hidden_layers="4"), "num_hidden_layers is '4', it must be a whole number"),
    "other rotary": (partial(edit_config, rope_parameters={"rope_type": "yarn"}), "of type 'yarn'; known: default"),
    "other groups": (partial(edit_config, num_key_value_heads=3), "multiple of num_key_value_heads 3"),
    "too few layers": (
        partial(edit_config, num_hidden_layers=3),
        "has the tensor model.layers.3.input_layernorm",
    ),
    "too many layers": (partial(edit_config, num_hidden_layers=5), "lacks the tensor model.layers.4."),
    "shape": (reshape_a_tensor, "model.norm.weight has shape [63], but by config.json it must have [64]"),
    "extra": (add_a_tensor, "has the tensor model.extra, for which a LlamaForCausalLM"),
    "truncated": (truncate, "is no whole safetensors file"),
    "code": (pickle_with_code, "a pickle can run code"),
    "old code": (old_pickle_with_code, "a pickle can run code"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_said_and_nothing_is_left(fault: str, saved: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(saved / "whole", folder)
    damage, says = FAULTS[fault]
    damage(folder)
    with pytest.raises(ConfigError, match=re.escape(says)) as raised:
        import_model(folder, out)
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert not (folder / "hacked").exists()


def test_a_missing_or_wrong_shard(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved / "sharded", folder)
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    shutil.copyfile(first, tmp_path / "kept")
    shutil.copyfile(second, first)
    with pytest.raises(ConfigError, match=f"{first.name} lacks the tensor"):
        import_model(folder, tmp_path / "out")
    first.unlink()
    with pytest.raises(ConfigError, match=f"lacks the shard {first.name}"):
        import_model(folder, tmp_path / "out")
    assert refusal("convert_checkpoint", "from-hf", folder, tmp_path / "out").endswith("index.json names")
    assert "there is no folder" in refusal("convert_checkpoint", "from-hf", tmp_path / "nothing", tmp_path / "out")


def test_shards_old_files_and_short_names_say_the_same(saved: Path, tmp_path: Path) -> None:
    tensors = load_file(saved / "whole" / "model.safetensors")
    for name in ("bin", "old-bin", "short"):
        shutil.copytree(saved / "whole", tmp_path / name)
        if name != "short":
            remove(tmp_path / name, "model.safetensors")
    torch.save(tensors, tmp_path / "bin" / "pytorch_model.bin")
    torch.save(tensors, tmp_path / "old-bin" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    short = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
    save_file(short, tmp_path / "short" / "model.safetensors")
    wanted = Source(saved / "whole")
    for folder in (saved / "sharded", tmp_path / "bin", tmp_path / "old-bin", tmp_path / "short"):
        found = Source(folder)
        for name in wanted.rules:
            assert torch.equal(found.read(name), wanted.read(name)), (folder, name)


def test_what_exists_is_not_overwritten(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ConfigError, match="exists already"):
        import_model(saved / "whole", tmp_path)
    assert (tmp_path / "precious").exists()
