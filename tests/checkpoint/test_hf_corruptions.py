"""A Hugging Face folder that is damaged is refused in a sentence, and nothing stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_distill.config.model import ModelShape
from tests.checkpoint.hf_corruptions import corruptions, edit_json
from tests.support.ranks import ranks
from tests.support.readable_models import save_readable_model


def outcome(*words: object) -> tuple[int, str, str]:
    from tools import convert_checkpoint

    said, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(error):
        code = convert_checkpoint.main([str(word) for word in words])
    return code, said.getvalue(), error.getvalue()


@ranks(1)
def test_every_corruption_is_refused_and_leaves_nothing(rank: int, tmp_path: Path, bpe_file: Path) -> None:
    whole = save_readable_model(tmp_path / "whole", bpe_file)
    code, said, error = outcome("from-hf", whole, tmp_path / "out")
    assert code == 0 and "logits equal" in said and "of text and at random" in said, error
    for number, (name, corrupt) in enumerate(corruptions()):
        folder, out = tmp_path / str(number) / "model", tmp_path / str(number) / "out"
        shutil.copytree(whole, folder)
        corrupt(folder)
        code, said, error = outcome("from-hf", folder, out)
        assert code in (1, 2), (name, said)
        line = error.strip().splitlines()[-1]
        assert line.startswith("convert_checkpoint.py: ") and "Traceback" not in error, (name, error)
        assert [entry.name for entry in out.parent.iterdir()] == ["model"], name


@ranks(1)
def test_an_export_replaces_an_export_and_nothing_else(rank: int, tmp_path: Path, bpe_file: Path) -> None:
    from safetensors.torch import load_file, save_file

    from megatron_distill.models.families import llama

    public, run, out = (tmp_path / name for name in ("public", "run", "out"))
    save_readable_model(public, bpe_file)
    assert outcome("from-hf", public, run)[0] == 0
    for target, why in ((public, "is not an export of this program"), (run, "is the folder of a run")):
        code, _, error = outcome("to-hf", run, target)
        assert code == 2 and why in error
    assert outcome("to-hf", run, out)[0] == 0
    (out / "chat_template.jinja").write_text("of an older tokenizer")
    (out / "notes.txt").write_text("of a person")
    secret = tmp_path / "secret"
    secret.write_text("x")
    (out / "README.md").unlink()
    (out / "README.md").symlink_to(secret)
    assert outcome("to-hf", run, out)[0] == 0
    assert secret.read_text() == "x" and (out / "notes.txt").exists() and not (out / "chat_template.jinja").exists()
    # A wrong conversion keeps what was there, and leaves nothing where nothing was.
    before = (out / "config.json").read_bytes()
    write = llama._write_config
    family = llama_family(lambda shape, layers: write(shape, layers) | {"rms_norm_eps": 0.5})
    for target in (out, tmp_path / "new"):
        code, _, error = outcome("to-hf", run, target)
        assert code == 1 and "NOT EQUAL" in error
    llama_family(family)
    assert (out / "config.json").read_bytes() == before and not (tmp_path / "new").exists()
    # A head that is not the embedding, in a model that ties them.
    tensors = load_file(public / "model.safetensors")
    edit_json(public, "config.json", {"tie_word_embeddings": True})
    save_file(tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1}, public / "model.safetensors")
    code, _, error = outcome("from-hf", public, tmp_path / "tied")
    assert code == 2 and "lm_head.weight is another matrix" in error and not (tmp_path / "tied").exists()


def llama_family(write_config: Callable[[ModelShape, tuple[int, ...]], dict[str, Any]]) -> Any:
    """Let Llamas be written by another function; returns the one before."""
    from megatron_distill.models.families.registry import find_family, register

    family = find_family("llama")
    register(dataclasses.replace(family, write_config=write_config))
    return family.write_config
