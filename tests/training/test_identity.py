"""Tokenizers and teachers are told apart by their content."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from megatron_distill.checkpoint.from_hf import import_model
from megatron_distill.checkpoint.inference import find_model
from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.data.corpus_record import CorpusRecord, write_corpus_record
from megatron_distill.data.tokenizer import fingerprint, vocab_size
from megatron_distill.training.plan import RunPlan, make_plan
from tests.checkpoint.planted import reseal
from tests.support.corpora import write_corpus
from tests.support.public_models import save_public_model

SHORT = ("--seq-length", 32, "--global-batch-size", 2, "--micro-batch-size", 2, "--train-iters", 4, "--eval-iters", 1)
DISTIL = ("--teacher-placement", "colocated", "--loss", "vanilla")


def plan(folder: Path, corpus: Path, *flags: object, save: str = "new") -> RunPlan:
    words = ["--data-path", corpus, "--save", folder / save, *SHORT, *flags]
    return make_plan(parse(RunConfig, [str(word) for word in words]), world_size=1)


def write_tokenizer(path: Path, tokens: str) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", *tokens])}
    path.parent.mkdir(parents=True, exist_ok=True)
    Tokenizer(WordLevel(vocabulary, unk_token="<unk>")).save(str(path))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs a and b, of one shape and other weights, with other tokenizers; `plain` is a without one."""
    folder = tmp_path_factory.mktemp("models")
    for name, tokens in (("a", "abcdefgh"), ("b", "abcdhgfe"), ("plain", "")):
        public = save_public_model("llama", folder / f"public_{name}")
        if name == "b":
            weights = load_file(public / "model.safetensors")
            save_file({key: value * 1.5 for key, value in weights.items()}, public / "model.safetensors")
        if tokens:
            write_tokenizer(public / "tokenizer.json", tokens)
        import_model(public, folder / name)
    return folder


def test_fingerprints_are_of_the_content(models: Path, tmp_path: Path) -> None:
    marks = {name: read_manifest(find_checkpoint(models / name)).fingerprint for name in ("a", "b", "plain")}
    assert marks["a"] == marks["plain"] != marks["b"]
    moved = Path(shutil.copytree(models / "b", tmp_path / "elsewhere"))
    assert read_manifest(find_checkpoint(moved)).fingerprint == marks["b"]
    manifest = read_manifest(find_checkpoint(models / "a"))
    assert manifest.tokenizer_fingerprint == fingerprint(models / "a" / "tokenizer")
    assert set(manifest.tokenizer_checksums) == {"tokenizer.json", "config.json", "generation_config.json"}


def test_three_tokenizers_are_compared(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", vocab=10)
    other = write_tokenizer(tmp_path / "other" / "tokenizer.json", "abcdhgfe")
    same = write_tokenizer(tmp_path / "same" / "tokenizer.json", "abcdefgh")
    load = ("--load", models / "a")
    assert plan(tmp_path, corpus, *load, "--tokenizer", same).tokenizer == str(same)
    with pytest.raises(ConfigError, match="--tokenizer .* is another tokenizer than .*: 6 of 10 ids mean the same"):
        plan(tmp_path, corpus, *load, "--tokenizer", other)
    with pytest.raises(ConfigError, match=r"the teacher .*b is another tokenizer than .*a: 6 of 10 ids .* a teacher"):
        plan(tmp_path, corpus, *load, *DISTIL, "--teacher-load", models / "b")
    assert plan(tmp_path, corpus, *load, *DISTIL, "--teacher-load", models / "plain").teacher is not None
    record = CorpusRecord(
        tokenizer=fingerprint(same), vocab_size=vocab_size(same), eod_id=1, bos_id=None, num_documents=1, num_tokens=1
    )
    write_corpus_record(corpus, record)
    plan(tmp_path, corpus, *load)
    plan(tmp_path, corpus, "--load", models / "plain")
    write_corpus_record(corpus, dataclasses.replace(record, tokenizer=fingerprint(other)))
    with pytest.raises(ConfigError, match="the one that made --data-path .* is another tokenizer than that of --load"):
        plan(tmp_path, corpus, *load)


def test_a_teacher_is_its_weights(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", vocab=10)
    teacher = Path(shutil.copytree(models / "plain", tmp_path / "teacher"))
    flags = ("--load", models / "plain", *DISTIL, "--teacher-load", teacher)
    first = plan(tmp_path, corpus, *flags)
    run = Path(shutil.copytree(models / "plain", tmp_path / "run"))
    checkpoint = find_checkpoint(run)
    stored = {
        "objective": first.objective,
        "optimizer": "lion",
        "sample_order": first.sample_order,
        "trainable_layers": list(first.initial_layers),
    }
    reseal(checkpoint, **stored)
    assert plan(tmp_path, corpus, *flags, save="run").start == 0
    assert plan(tmp_path, corpus, *flags, "--loss", "vanilla:weight=1", save="run").resume_from == checkpoint
    moved = Path(shutil.copytree(teacher, tmp_path / "moved"))
    plan(tmp_path, corpus, *flags, "--teacher-load", moved, save="run")
    with pytest.raises(ConfigError, match="was trained with --loss vanilla:weight=1.0 --lm-weight 1.0, not .*weight=2"):
        plan(tmp_path, corpus, *flags, "--loss", "vanilla:weight=2", save="run")
    for change in (["--loss", "vanilla:temperature=2"], ["--lm-weight", 2], ["--no-normalise-losses"]):
        with pytest.raises(ConfigError, match="was trained with --loss vanilla:weight=1.0 --lm-weight 1.0, not --loss"):
            plan(tmp_path, corpus, *flags, *change, save="run")
    shutil.rmtree(teacher)
    shutil.copytree(models / "b", teacher)  # other weights of the same shape at the same path
    (teacher / "tokenizer" / "tokenizer.json").unlink()
    reseal(find_checkpoint(teacher), tokenizer=None, tokenizer_fingerprint=None, tokenizer_checksums={})
    with pytest.raises(ConfigError, match="was trained with a teacher of other weights than"):
        plan(tmp_path, corpus, *flags, save="run")


def test_an_objective_of_format_2_is_compared_in_words(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", vocab=10)
    flags = ("--load", models / "plain", *DISTIL)
    found = plan(tmp_path, corpus, *flags)
    assert found.teacher is not None
    run = Path(shutil.copytree(models / "plain", tmp_path / "run"))
    words = f"--loss vanilla, --lm-weight 1, of {found.teacher.description}"
    layers = list(found.initial_layers)
    reseal(find_checkpoint(run), format=2, objective=words, optimizer="lion", trainable_layers=layers)
    assert plan(tmp_path, corpus, *flags, save="run").resume_from is not None
    with pytest.raises(ConfigError, match="was trained with --loss vanilla, --lm-weight 1, of a llama"):
        plan(tmp_path, corpus, *flags, "--lm-weight", 2, save="run")


def test_a_damaged_tokenizer_is_found_before_the_run(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", vocab=10)
    source = Path(shutil.copytree(models / "a", tmp_path / "source"))
    kept = source / "tokenizer" / "tokenizer.json"
    values = json.loads(kept.read_text())
    values["model"]["vocab"] |= {"a": 3, "b": 2}
    kept.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"tokenizer.json is damaged: it is not what was kept"):
        plan(tmp_path, corpus, "--load", source)
    kept.unlink()
    with pytest.raises(ConfigError, match=r"tokenizer.json is missing; bring back"):
        plan(tmp_path, corpus, "--load", source)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_what_goes_along_with_a_tokenizer_is_read_before_the_run(name: str, models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", vocab=10)
    folder = Path(shutil.copytree(models / "public_a", tmp_path / "given"))
    flags = ("--model", "palm-tiny", "--vocab-size", 10, "--tokenizer", folder)
    (folder / name).write_text('{"added": 1}')
    assert plan(tmp_path, corpus, *flags).tokenizer == str(folder)
    for damaged in ("", '"added": 1}', "[1]", "\0" * 12):
        (folder / name).write_text(damaged)
        with pytest.raises(ConfigError, match=f"{name} is damaged"):
            plan(tmp_path, corpus, *flags)
    for make in (Path.mkdir, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path)):
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()
        make(folder / name)
        with pytest.raises(ConfigError, match=f"{name} cannot be read: it is no file"):
            plan(tmp_path, corpus, *flags)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"]
)
def test_a_file_that_was_put_beside_the_tokenizer_is_found(name: str, models: Path, tmp_path: Path) -> None:
    """transformers reads it, and takes other tokens for the first and the last."""
    source = Path(shutil.copytree(models / "a", tmp_path / "source"))
    (source / "tokenizer" / "notes.txt").write_text("no part of a tokenizer")
    find_model(source)
    (source / "tokenizer" / name).write_text('{"eos_token": "a"}')
    with pytest.raises(ConfigError, match=rf"{name} (was not kept|.* is not what was kept) with the checkpoint"):
        find_model(source)
    with pytest.raises(ConfigError, match="kept with the checkpoint"):
        plan(tmp_path, write_corpus(tmp_path / "c", vocab=10), "--load", source)


def test_a_run_keeps_the_files_of_the_tokenizer_that_it_began_with(models: Path, tmp_path: Path) -> None:
    """Given in another form when it resumes, the copies would be a mixture of both."""
    corpus = write_corpus(tmp_path / "c", vocab=10)
    run = Path(shutil.copytree(models / "a", tmp_path / "run"))
    layers = list(read_manifest(find_checkpoint(run)).layers)
    reseal(find_checkpoint(run), optimizer="lion", trainable_layers=layers)
    given = write_tokenizer(tmp_path / "given" / "tokenizer.json", "abcdefgh")
    (given.parent / "tokenizer_config.json").write_text('{"eos_token": "a"}')
    flags = ("--load", models / "a", "--tokenizer", given.parent)
    kept = run / "tokenizer"
    resumed = plan(tmp_path, corpus, *flags, save="run")
    assert resumed.resume_from is not None
    assert resumed.tokenizer is not None and Path(resumed.tokenizer).is_relative_to(kept)
    assert plan(tmp_path, corpus, *flags).tokenizer == str(given.parent)
    (kept / "tokenizer.json").unlink()
    assert plan(tmp_path, corpus, *flags, save="run").tokenizer == str(given.parent), "a copy that is gone is replaced"


def test_other_text_of_the_same_size_is_refused(models: Path, tmp_path: Path) -> None:
    """Its tokens and documents are as many, so that only the bytes tell."""
    corpus, flags = write_corpus(tmp_path / "c", vocab=10), ("--load", models / "plain")
    first = plan(tmp_path, corpus, *flags)
    run = Path(shutil.copytree(models / "plain", tmp_path / "run"))
    stored = {"optimizer": "lion", "trainable_layers": list(first.initial_layers)}
    reseal(find_checkpoint(run), **stored, sample_order=first.sample_order)
    moved = write_corpus(tmp_path / "moved", vocab=10)
    assert plan(tmp_path, moved, *flags, save="run").resume_from is not None
    other = write_corpus(tmp_path / "other", vocab=10, seed=1)
    with pytest.raises(ConfigError, match="was trained on other text than that of --data-path .*other, although"):
        plan(tmp_path, other, *flags, save="run")
    older = {name: value for name, value in first.sample_order.items() if name != "data-content"}
    reseal(find_checkpoint(run), **stored, sample_order=older)
    assert plan(tmp_path, other, *flags, save="run").resume_from is not None, "an older run does not say"
