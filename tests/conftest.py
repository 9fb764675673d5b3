"""Fixtures that several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora import write_corpus
from tests.support.runs import MODEL, SMALL, start


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
