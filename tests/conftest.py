"""Fixtures that several rooms share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.corpora import write_corpus
from tests.support.ranks import launch
from tests.support.runs import MODEL, SMALL, start
from tests.support.texts import write_text
from tests.support.tools import run_tool


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a small corpus of 60 token types."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "text")


@pytest.fixture(scope="session")
def base_run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A pretrained model of 6 layers to compress."""
    run = tmp_path_factory.mktemp("base") / "run"
    start(*MODEL, *SMALL, "--num-layers", 6, "--data-path", corpus, "--train-iters", 30, "--save", run)
    return run


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of invented prose, code and other alphabets."""
    return write_text(tmp_path_factory.mktemp("text") / "text.jsonl")


@pytest.fixture(scope="session")
def bpe_file(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """A tokenizer.json trained on `text_file`."""
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    run_tool("train_tokenizer", "--input", text_file, "--vocab-size", 400, "--output", path)
    return path


@pytest.fixture(scope="session")
def sentencepiece_file(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """A SentencePiece .model trained on `text_file`."""
    path = tmp_path_factory.mktemp("sentencepiece") / "spm.model"
    kind = ("--kind", "sentencepiece")
    run_tool("train_tokenizer", "--input", text_file, "--vocab-size", 500, "--output", path, *kind)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def _save_readable(rank: int, tmp_path: Path, tokenizer: Path) -> None:
    from tests.support.readable_models import save_readable_model

    save_readable_model(tmp_path / "model", tokenizer)


@pytest.fixture(scope="session")
def readable_model(tmp_path_factory: pytest.TempPathFactory, bpe_file: Path) -> Path:
    """A Hugging Face folder with a small model and a tokenizer."""
    folder = tmp_path_factory.mktemp("readable")
    launch(_save_readable, 1, 60.0, folder, {"tokenizer": bpe_file})
    return folder / "model"
