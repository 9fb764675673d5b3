"""Parts become a corpus, and a stop after any change of the disk loses nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from megatron_distill.data.corpus_record import CorpusRecord, read_corpus_record
from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.prepare import merge as merge_module
from megatron_distill.data.prepare.forms import Documents
from megatron_distill.data.prepare.merge import Merge
from megatron_distill.data.prepare.outcome import Outcome
from megatron_distill.data.prepare.parts import PartFiles, PartWriter, Record

PARTS = [[[1, 2, 3]], [[4], [5, 6]], [], [[7, 8]]]
OUTCOME = Outcome(4, 8, 0, {"by hand": 4}, 0, [], "no frame")
RECORD = CorpusRecord(tokenizer="1234", vocab_size=9, eod_id=None, bos_id=3, num_documents=4, num_tokens=8)


class Killed(BaseException):
    """The process ends here."""


def write_parts(folder: Path, parts: list[list[list[int]]]) -> tuple[list[PartFiles], list[Record]]:
    folder.mkdir()
    files = [PartFiles(folder, i) for i in range(len(parts))]
    records = [Record(f"key {i}") for i in range(len(parts))]
    for part, record, documents in zip(files, records, parts, strict=True):
        with PartWriter(part, np.dtype(np.uint16), record) as writer:
            tokens = [np.array(document, np.uint32) for document in documents]
            writer.add(Documents(tokens, [len(d) for d in documents], list(range(len(documents)))))
    return files, records


def join(merge: Merge, files: list[PartFiles], records: list[Record]) -> None:
    if merge.publish() is None:
        merge.run(files, records)
        merge.seal("key", OUTCOME, RECORD)
        seal = merge.publish()
        assert seal is not None and (seal.key, seal.outcome, seal.record) == ("key", OUTCOME, RECORD)


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Ends the process at the `step`-th change of the disk."""
    left = [step]

    def count(change):  # type: ignore[no-untyped-def]
        def counted(*arguments, **options):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return change(*arguments, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", count(Path.replace))
        patch.setattr(Path, "unlink", count(Path.unlink))
        patch.setattr(merge_module, "_copy", count(merge_module._copy))
        patch.setattr(merge_module, "write_index", count(merge_module.write_index))
        yield


@pytest.mark.parametrize("parts", [PARTS, PARTS[:1]], ids=["several", "one"])
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, parts: list[list[list[int]]]) -> None:
    step, finished = 0, False
    while not finished:
        step += 1
        here = tmp_path / str(step)
        here.mkdir()
        files, records = write_parts(here / "parts", parts)
        merge = Merge(here / "parts", str(here / "corpus"))
        try:
            with killed_at(step):
                join(merge, files, records)
            finished = True
        except Killed:
            if (here / "corpus.idx").exists() and not list((here / "parts").iterdir()):
                continue  # all was done
            join(merge, files, records)
        corpus = IndexedCorpus(here / "corpus")
        read = [corpus.document_tokens(i).tolist() for i in range(corpus.num_documents)]
        assert read == [document for part in parts for document in part], step
        assert list((here / "parts").iterdir()) == []
        assert read_corpus_record(here / "corpus") == RECORD
    assert step > 5


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_systems_that_do_not_copy_are_copied_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    files, records = write_parts(tmp_path / "parts", PARTS)
    join(Merge(tmp_path / "parts", str(tmp_path / "corpus")), files, records)
    assert IndexedCorpus(tmp_path / "corpus").windows([0], 8).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]


def test_another_trouble_while_copying_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    files, records = write_parts(tmp_path / "parts", PARTS)
    with pytest.raises(OSError, match="No space left"):
        Merge(tmp_path / "parts", str(tmp_path / "corpus")).run(files, records)


def test_a_file_system_that_copies_nothing_and_says_nothing_is_copied_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *arguments: 0)
    files, records = write_parts(tmp_path / "parts", PARTS)
    join(Merge(tmp_path / "parts", str(tmp_path / "corpus")), files, records)
    assert IndexedCorpus(tmp_path / "corpus").windows([0], 8).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]


def test_a_merge_goes_on_only_from_bytes_that_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, records = write_parts(tmp_path / "parts", PARTS)
    merge = Merge(tmp_path / "parts", str(tmp_path / "corpus"))
    monkeypatch.setattr(merge_module, "UNWRITTEN_BYTES", 1)
    with killed_at(5), pytest.raises(Killed):
        merge.run(files, records)
    assert merge.has_begun and not files[1].bin.exists() and files[3].bin.exists()
    assert merge.can_go_on(files, records)
    for path in (merge.bin, files[3].bin, *(part.idx for part in files)):
        sound = path.read_bytes()
        path.write_bytes(sound[:3] + bytes([sound[3] ^ 1]) + sound[4:])
        assert not merge.can_go_on(files, records), path
        path.write_bytes(sound)
    assert merge.can_go_on(files, records)
    join(merge, files, records)
    assert IndexedCorpus(tmp_path / "corpus").windows([0], 8).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]


@pytest.mark.parametrize("seal", ["", "{}", "[" * 100_000, '{"key": 3}', "\0" * 50])
def test_a_damaged_seal_is_made_again(tmp_path: Path, seal: str) -> None:
    files, records = write_parts(tmp_path / "parts", PARTS)
    told: list[str] = []
    merge = Merge(tmp_path / "parts", str(tmp_path / "corpus"), told.append)
    merge.run(files, records)
    (tmp_path / "parts" / "merged.json").write_text(seal)
    assert merge.publish() is None
    assert len(told) == 1 and "merged.json is damaged" in told[0] and "joined again" in told[0]
    join(merge, files, records)
    assert IndexedCorpus(tmp_path / "corpus").num_tokens == 8


def test_a_kill_between_the_two_renames_leaves_no_mixture(tmp_path: Path) -> None:
    merge = Merge(tmp_path / "parts", str(tmp_path / "corpus"))
    for parts in ([[[9] * 8]], [[[1, 2, 3, 4, 5, 6, 7, 8]]]):
        files, records = write_parts(tmp_path / "parts", parts)
        merge.run(files, records)
        merge.seal("key", OUTCOME, RECORD)
        if parts[0][0][0] == 1:
            with killed_at(3), pytest.raises(Killed):  # the old index is removed, the new tokens have their name
                merge.publish()
            assert (tmp_path / "corpus.bin").exists() and not (tmp_path / "corpus.idx").exists()
        assert merge.publish() is not None
        (tmp_path / "parts").rmdir()
    assert IndexedCorpus(tmp_path / "corpus").windows([0], 8).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
