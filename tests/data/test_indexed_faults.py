"""Damaged corpora, and writers that fail."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus, IndexedWriter
from megatron_distill.data.samples import document_samples
from tests.support.corpora import write_corpus

PATCHES = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6)
LARGE = [b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\x00" * 7 + b"\x80", struct.pack("<Q", 2**61), struct.pack("<Q", 2**32)]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "text", documents=3, length=5)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sound") / "text", documents=4, length=6)


def patched(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + value + data[offset + len(value) :]


FAULTS: dict[str, tuple[str, Callable[[bytes], bytes] | None, str]] = {
    "missing .bin": (".bin", None, r"no file .*text\.bin"),
    "missing .idx": (".idx", None, r"no file .*text\.idx"),
    "truncated .bin": (".bin", lambda d: d[:-2], r"text\.bin has 28 bytes, but .*text\.idx describes 30"),
    "longer .bin": (".bin", lambda d: d + b"\0\0", r"text\.bin has 32 bytes, but .*text\.idx describes 30"),
    "empty .bin": (".bin", lambda d: b"", r"text\.bin has 0 bytes"),
    "empty .idx": (".idx", lambda d: b"", r"text\.idx is damaged: it is shorter than its header"),
    "header cut off": (".idx", lambda d: d[:33], r"text\.idx is damaged: it is shorter than its header"),
    "truncated .idx": (".idx", lambda d: d[:-1], r"text\.idx is damaged: it should have 102 bytes, it has 101"),
    "longer .idx": (".idx", lambda d: d + b"\0", r"text\.idx is damaged: it should have 102 bytes, it has 103"),
    "wrong magic": (".idx", patched(0, b"X"), r"text\.idx is damaged: it does not start"),
    "wrong version": (".idx", patched(9, b"\2"), r"text\.idx is damaged: it has version 2, only 1"),
    "float tokens": (".idx", patched(17, b"\7"), r"text\.idx is damaged: its dtype code 7"),
    "dtype code 0": (".idx", patched(17, b"\0"), r"text\.idx is damaged: its dtype code 0"),
    "another dtype": (".idx", patched(17, b"\4"), r"text\.bin has 30 bytes, but .*text\.idx describes 40"),
    "too many sequences": (".idx", patched(18, b"\xff" * 8), r"text\.idx is damaged: it counts more"),
    "too many documents": (".idx", patched(26, b"\xff" * 8), r"text\.idx is damaged: it counts more"),
    "negative length": (".idx", patched(34 + 8, b"\xff" * 4), r"text\.idx is damaged: .* negative"),
    "negative offset": (".idx", patched(46 + 16, b"\xff" * 8), r"text\.idx is damaged: .* negative"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_corpus_is_one_sentence_with_the_file_and_the_tool(prefix: Path, fault: str) -> None:
    ending, change, says = FAULTS[fault]
    path = Path(f"{prefix}{ending}")
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ConfigError, match=says) as raised:
        IndexedCorpus(prefix)
    assert "tools/preprocess_data.py" in str(raised.value) and "\n" not in str(raised.value)


def test_a_folder_is_no_corpus(prefix: Path) -> None:
    Path(f"{prefix}.bin").unlink()
    Path(f"{prefix}.bin").mkdir()
    with pytest.raises(ConfigError, match=r"text\.bin is not a regular file"):
        IndexedCorpus(prefix)


@pytest.mark.parametrize("mark", [-1, 5, 2**62], ids=str)
def test_a_document_outside_the_index_is_said_when_it_is_asked_for(prefix: Path, mark: int) -> None:
    path = Path(f"{prefix}.idx")
    path.write_bytes(patched(70 + 8, struct.pack("<q", mark))(path.read_bytes()))
    corpus = IndexedCorpus(prefix)
    with pytest.raises(ConfigError, match=r"text\.idx is damaged: a document lies outside"):
        corpus.document_start(1)


@pytest.mark.parametrize("offset", [-2, 32, 3], ids=["negative", "beyond", "half a token"])
def test_a_sequence_outside_the_tokens_is_said_when_it_is_asked_for(prefix: Path, offset: int) -> None:
    path = Path(f"{prefix}.idx")
    path.write_bytes(patched(46 + 8, struct.pack("<q", offset))(path.read_bytes()))
    corpus = IndexedCorpus(prefix)
    with pytest.raises(ConfigError, match=r"sequence 1 lies outside .*text\.bin"):
        corpus.document_start(1)


def test_lengths_that_are_not_those_of_the_offsets_are_seen(prefix: Path) -> None:
    path, sound = Path(f"{prefix}.idx"), Path(f"{prefix}.idx").read_bytes()
    options = {"seq_length": 2, "vocab_size": 100, "num_samples": 5, "seed": 1}
    document_samples(IndexedCorpus(prefix), (0, 3), **options)
    for at in range(34, 46):  # every bit of the three lengths
        for bit in range(8):
            path.write_bytes(patched(at, bytes([sound[at] ^ (1 << bit)]))(sound))
            with pytest.raises(ConfigError, match=r"text\.(idx|bin) .*make (it again|both again)"):
                document_samples(IndexedCorpus(prefix), (0, 3), **options)
    path.write_bytes(patched(34, bytes(8))(sound))
    with pytest.raises(ConfigError, match=r"sequences 0 to 3 add up to 5 tokens, their offsets to 15"):
        document_samples(IndexedCorpus(prefix), (0, 3), **options)
    document_samples(IndexedCorpus(prefix), (2, 1), **options)


@settings(max_examples=400, deadline=None)
@example(patches=[], words=[(18, LARGE[3]), (26, LARGE[3])])
@given(patches=PATCHES, words=st.lists(st.tuples(st.integers(0, 2**16), st.sampled_from(LARGE)), max_size=3))
def test_no_index_makes_the_reader_leave_the_corpus(
    sound: Path, patches: list[tuple[int, int]], words: list[tuple[int, bytes]]
) -> None:
    index = bytearray(Path(f"{sound}.idx").read_bytes())
    for at, byte in patches:
        index[at % len(index)] = byte
    for at, word in words:
        start = at % (len(index) - 7)
        index[start : start + 8] = word
    folder = sound.parent / "fuzzed"
    folder.mkdir(exist_ok=True)
    tokens = Path(f"{sound}.bin").read_bytes()
    (folder / "text.bin").write_bytes(tokens)
    (folder / "text.idx").write_bytes(index)
    try:
        corpus = IndexedCorpus(folder / "text")
    except ConfigError:
        return
    stream = np.frombuffer(tokens, dtype=corpus.dtype, count=corpus.num_tokens)
    assert corpus.max_token() == stream.max()
    assert corpus.windows([0], corpus.num_tokens).tolist() == [stream.tolist()]
    for document in range(min(corpus.num_documents, 20)):
        try:
            got = corpus.document_tokens(document).tolist()
        except (ConfigError, IndexError):
            continue
        start = corpus.document_start(document)
        assert got == stream[start : start + len(got)].tolist()


def write_something(prefix: Path, error: BaseException) -> None:
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        writer.add_document([1, 2, 3])
        raise error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_something(tmp_path / "text", error)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_leaves_the_old_corpus_as_it_was(prefix: Path) -> None:
    before = {path.name: path.read_bytes() for path in prefix.parent.iterdir()}
    with pytest.raises(ValueError):
        write_something(prefix, ValueError())
    assert {path.name: path.read_bytes() for path in prefix.parent.iterdir()} == before


@pytest.mark.parametrize("token", [65536, -1])
def test_a_token_that_does_not_fit_is_named(tmp_path: Path, token: int) -> None:
    with (
        pytest.raises(OverflowError, match=f"token {token} does not fit uint16"),
        IndexedWriter(tmp_path / "text", np.dtype(np.uint16)) as writer,
    ):
        writer.add_document([7, token, 9])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/text\.bin cannot be written: No such file"):
        IndexedWriter(tmp_path / "nowhere" / "text", np.dtype(np.uint16))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4096 bytes. Not a fixture: pytest itself writes between a test and its teardown."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("tokens", [3000, 30_000], ids=["on closing", "while writing"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, tokens: int) -> None:
    with full_disk(), pytest.raises(OSError), IndexedWriter(tmp_path / "text", np.dtype(np.uint16)) as writer:
        writer.add_document(np.arange(tokens))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["idx", "bin"])
def test_a_pipe_is_no_corpus(kind: str, tmp_path: Path) -> None:
    """To open one would wait for a writer for ever."""
    prefix = write_corpus(tmp_path / "c")
    path = Path(f"{prefix}.{kind}")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="it is a pipe or a device"):
        IndexedCorpus(prefix)
