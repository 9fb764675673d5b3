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


def quantise(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(64, dtype=torch.int8)
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
    "no sizes": (partial(edit_config, hidden_size=None), "hidden_size is null, it must be a whole number"),
    "bad size": (partial(edit_config, num_hidden_layers="4"), "num_hidden_layers is '4', it must be a whole number"),
    "other rotary": (partial(edit_config, rope_parameters={"rope_type": "yarn"}), "of type 'yarn'; known: default"),
    "other groups": (partial(edit_config, num_key_value_heads=3), "multiple of num_key_value_heads 3"),
    "too few layers": (
        partial(edit_config, num_hidden_layers=3),
        "has the tensor model.layers.3.input_layernorm",
    ),
    "too many layers": (partial(edit_config, num_hidden_layers=5), "lacks the tensor model.layers.4."),
    "shape": (reshape_a_tensor, "model.norm.weight has shape [63], but by config.json it must have [64]"),
    "quantised": (quantise, "model.norm.weight is of type I8; known: F32, BF16, F16"),
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


def losses_under_tensor_parallelism(rank: int, name: str, tmp_path: Path) -> None:
    """Rows that pad the vocabulary count for nothing: the losses of two ranks are those of transformers on one."""
    from transformers import AutoModelForCausalLM

    from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest
    from megatron_distill.checkpoint.native import load_checkpoint
    from megatron_distill.config.run import Layout
    from megatron_distill.models.build import BuildOptions, build_decoder
    from tests.support.worlds import student_world

    folder = find_checkpoint(tmp_path / "ours")
    manifest = read_manifest(folder)
    assert manifest.shape.padded_vocab_size == 128
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    ids = torch.randint(0, 75, (2, 33), generator=torch.Generator().manual_seed(1))
    logits = theirs(ids[:, :-1]).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    with student_world(tp=2):
        layout = Layout(tensor=2, pipeline=1, data=1, num_microbatches=1)
        options = BuildOptions(dtype=torch.float32, attention_backend="sdpa")
        ours = build_decoder(manifest.shape, manifest.layers, layout, options)
        load_checkpoint(folder, ours, None)
        found = ours(ids[:, :-1], torch.arange(32).expand(2, -1), None, labels=ids[:, 1:].contiguous())
        torch.testing.assert_close(found.flatten(), wanted, rtol=1e-5, atol=1e-5)


def save_and_import(rank: int, name: str, tmp_path: Path) -> None:
    import_model(save_public_model(name, tmp_path / "theirs"), tmp_path / "ours")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_losses_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    launch(save_and_import, 1, 90.0, tmp_path, {"name": name})
    launch(losses_under_tensor_parallelism, 2, 90.0, tmp_path, {"name": name})


def export_in_shards(rank: int, tmp_path: Path) -> None:
    from megatron_distill.checkpoint import huggingface
    from tools import convert_checkpoint as tool

    huggingface.SHARD_BYTES = 30_000
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert tool.export(tmp_path / "ours", tmp_path / "again") == 0
    assert "logits equal" in said.getvalue()


def test_the_tokenizer_and_shards_go_out_too(readable_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(readable_model, folder)
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    said = {"bos_token_id": 1, "eos_token_id": [0, 3], "pad_token_id": 5, "do_sample": True, "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(said))
    edit_config(folder, eos_token_id=[3, 0], bos_token_id=2)
    (folder / "tokenization.py").write_text("raise SystemExit('executed')")
    import_model(folder, tmp_path / "ours")
    launch(export_in_shards, 1, 90.0, tmp_path, {})
    out = tmp_path / "again"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert not list(out.glob("*.py"))
    config = json.loads((out / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (2, [3, 0])
    assert json.loads((out / "generation_config.json").read_text()) == said
    shards = sorted(out.glob("model-*.safetensors"))
    assert len(shards) > 2
    index = json.loads((out / "model.safetensors.index.json").read_text())
    tensors = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize(("stored", "ours"), [(torch.bfloat16, "bfloat16"), (torch.float16, "float32")])
def test_no_digit_is_lost(stored: torch.dtype, ours: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "whole", tmp_path / "theirs")
    tensors = load_file(saved / "whole" / "model.safetensors")
    save_file({name: t.to(stored) for name, t in tensors.items()}, tmp_path / "theirs" / "model.safetensors")
    source = Source(tmp_path / "theirs")
    assert source.dtype == getattr(torch, ours)
    wanted = tensors["model.norm.weight"].to(stored).to(source.dtype)
    assert torch.equal(source.read("decoder.final_layernorm.weight"), wanted)


def equal_in_bf16(rank: int, tmp_path: Path) -> None:
    from tools import convert_checkpoint as tool

    with contextlib.redirect_stdout(io.StringIO()):
        assert tool.import_folder(tmp_path / "theirs", tmp_path / "ours") == 0
        assert tool.export(tmp_path / "ours", tmp_path / "again") == 0


def test_a_round_trip_in_bf16(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "whole", tmp_path / "theirs")
    before = {name: t.bfloat16() for name, t in load_file(saved / "whole" / "model.safetensors").items()}
    save_file(before, tmp_path / "theirs" / "model.safetensors")
    launch(equal_in_bf16, 1, 90.0, tmp_path, {})
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
