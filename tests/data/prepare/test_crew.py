"""Workers that fail are told apart from workers that die."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare import crew
from megatron_distill.data.prepare.crew import Worker, make_parts
from megatron_distill.data.prepare.part_maker import Job
from megatron_distill.data.prepare.parts import PartFiles, Recipe
from megatron_distill.data.prepare.pieces import Piece
from megatron_distill.data.prepare.worker import decode_job, encode_job
from megatron_distill.data.tokenizer import load_tokenizer
from tests.support import recipes


@pytest.fixture
def recipe(bpe_file: Path) -> Recipe:
    return recipes.recipe(str(bpe_file))


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def job(path: Path, folder: Path, number: int = 0) -> Job:
    folder.mkdir(exist_ok=True)
    return Job(Piece.whole(path), PartFiles(folder, number), "key")


def wait_for(worker: Worker) -> None:
    while all("record" not in said for said in worker.hear()):
        pass


def test_a_job_travels(text_file: Path, tmp_path: Path) -> None:
    sent = job(text_file, tmp_path / "parts", 3)
    assert decode_job(encode_job(sent)) == sent


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_each_part_is_made_once(
    workers: int, recipe: Recipe, lock: int, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "WORKER_BYTES", 1)
    jobs = [job(text_file, tmp_path / "parts", number) for number in (0, 1, 5)]
    told: set[int] = set()
    tokenizer = load_tokenizer(recipe.tokenizer)
    records = make_parts(recipe, tokenizer, jobs, workers, lock, lambda number, counts: told.add(number))
    assert set(records) == told == {0, 1, 5}
    assert len({record.num_tokens for record in records.values()}) == 1
    assert all(each.files.are_whole(records[each.files.number]) for each in jobs)


def test_what_a_worker_cannot_do_is_an_error_of_its_kind(recipe: Recipe, lock: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{")
    with Worker(recipe, 1, lock) as worker:
        worker.take(job(tmp_path / "a.jsonl", tmp_path / "parts"))
        with pytest.raises(ConfigError, match=r"a\.jsonl, line 1: not JSON"):
            wait_for(worker)
    with Worker(recipe, 1, lock) as worker:
        worker.take(Job(Piece.whole(tmp_path / "a.jsonl"), PartFiles(tmp_path / "missing", 0), "key"))
        with pytest.raises(OSError, match="No such file") as raised:
            wait_for(worker)
    assert raised.value.errno == errno.ENOENT
    assert raised.value.filename == str(tmp_path / "missing" / "000000.bin.partial")


def test_a_worker_that_is_killed_is_said(recipe: Recipe, lock: int, text_file: Path, tmp_path: Path) -> None:
    with Worker(recipe, 1, lock) as worker:
        worker._process.kill()
        with pytest.raises(ChildProcessError, match=r"a worker was ended by signal 9; give fewer --workers"):
            wait_for(worker)
        with pytest.raises(ChildProcessError):
            worker.take(job(text_file, tmp_path / "parts"))
