"""What a corpus holds, however its text was cut up, and what happens to bad lines."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
import zstandard
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from numpy.typing import NDArray

from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.prepare import compressed, crew, encode, pieces, places
from megatron_distill.data.prepare import preprocess as preparation
from megatron_distill.data.prepare.outcome import Outcome
from megatron_distill.data.prepare.preprocess import Request, preprocess
from megatron_distill.data.tokenizer import load_tokenizer

MakeRequest = Callable[..., Request]


@pytest.fixture
def request_of(bpe_file: Path, tmp_path: Path) -> MakeRequest:
    """A request for `tmp_path`/corpus on one core."""

    def make(*inputs: Path, **more: object) -> Request:
        fields: dict[str, object] = {
            "tokenizer": str(bpe_file),
            "output_prefix": str(tmp_path / "corpus"),
            "workers": 1,
        }
        return Request(inputs=list(map(str, inputs)), **(fields | more))  # type: ignore[arg-type]

    return make


def contents(prefix: str | Path) -> list[bytes]:
    return [Path(f"{prefix}.{kind}").read_bytes() for kind in ("bin", "idx")]


def write_lines(path: Path, lines: list[bytes]) -> Path:
    data = b"\n".join(lines) + b"\n"
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, lambda data: data)
    path.write_bytes(pack(data))
    return path


def test_the_bytes_are_those_of_megatron_cores_builder_fed_as_its_script_does(
    tmp_path: Path, bpe_file: Path, request_of: MakeRequest
) -> None:
    texts = ["", "the model", "", "is pruned again\n", " ", "", "never", "", ""]
    path = write_lines(tmp_path / "a.jsonl", [json.dumps({"text": text}).encode() for text in texts])
    outcome = preprocess(request_of(path))
    tokenizer = load_tokenizer(bpe_file)
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    # no end after nothing, and no sequence
    documents = [ids + [tokenizer.eod_id] if ids else [] for ids in tokenizer.encode_batch(texts)]
    for ids in documents:
        builder.add_document(torch.tensor(ids, dtype=torch.int64), [len(ids)] if ids else [])
    builder.finalize(str(tmp_path / "theirs.idx"))
    assert contents(tmp_path / "corpus") == contents(tmp_path / "theirs")
    assert (outcome.num_documents, outcome.num_skipped) == (len(texts), 0)
    corpus = IndexedCorpus(tmp_path / "corpus")
    assert [corpus.document_tokens(i).tolist() for i in range(len(texts))] == documents


def test_how_the_text_is_cut_changes_nothing(
    tmp_path: Path, text_file: Path, request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(request_of(text_file, output_prefix=str(tmp_path / "whole")))
    for size in (1, 700, 5000):
        for name in ("PIECE_BYTES", "BLOCK_BYTES"):
            monkeypatch.setattr(pieces, name, size)
        monkeypatch.setattr(compressed, "CHUNK", 997)
        monkeypatch.setattr(pieces, "MOST_PIECES", 12)
        preprocess(request_of(text_file))
        assert contents(tmp_path / "corpus") == contents(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_of_all_kinds_make_one_corpus(
    tmp_path: Path, text_file: Path, request_of: MakeRequest, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "WORKER_BYTES", 1)
    lines = text_file.read_bytes().splitlines()
    names = ["0.jsonl", "1.json.gz", "2.jsonl.zst", "3.json"]
    shards = [write_lines(tmp_path / name, lines[15 * i : 15 * i + 15]) for i, name in enumerate(names)]
    preprocess(request_of(text_file, output_prefix=str(tmp_path / "whole")))
    preprocess(request_of(*shards, workers=workers))
    assert contents(tmp_path / "corpus") == contents(tmp_path / "whole")


BAD = {
    "malformed": b'{"text": "cut',
    "no field": b'{"url": "x"}',
    "null": b'{"text": null}',
    "not UTF-8": b'{"text": "\xff"}',
    "unencodable": rb'{"text": "\ud800"}',
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz"])
def test_a_bad_line_stops_or_is_left_out(tmp_path: Path, request_of: MakeRequest, kind: str, name: str) -> None:
    good = [b'{"text": "the model"}', b'{"text": "is pruned"}']
    path = write_lines(tmp_path / name, [good[0], b"", BAD[kind], good[1]])
    with pytest.raises(ConfigError, match=rf"{name}, line 3: "):
        preprocess(request_of(path))
    assert sorted(tmp_path.iterdir()) == [path]
    outcome = preprocess(request_of(path, on_error="skip"))
    assert (outcome.num_documents, outcome.num_skipped, len(outcome.skipped)) == (2, 1, 1)
    assert f"{name}, line 3: " in outcome.skipped[0]
    skipped = contents(tmp_path / "corpus")
    preprocess(request_of(write_lines(tmp_path / "good.jsonl", good)))
    assert contents(tmp_path / "corpus") == skipped


@pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl.zst"])
def test_a_file_that_is_cut_off_stops_or_gives_its_sound_lines(
    tmp_path: Path, request_of: MakeRequest, name: str
) -> None:
    path = write_lines(tmp_path / name, [b'{"text": "%d"}' % i for i in range(30_000)])
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ConfigError, match=rf"{name}, after line \d+: the .* file is damaged or cut off"):
        preprocess(request_of(path))
    outcome = preprocess(request_of(path, on_error="skip"))
    assert 10_000 < outcome.num_documents < 30_000
    assert f"after line {outcome.num_documents}: " in outcome.skipped[0]


def test_the_first_ten_places_are_kept_with_their_lines(
    tmp_path: Path, request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [b'{"text": "%d"}' % i if i % 3 else b"{" for i in range(90)])
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    monkeypatch.setattr(pieces, "BLOCK_BYTES", 30)
    outcome = preprocess(request_of(path, on_error="skip"))
    assert (outcome.num_documents, outcome.num_skipped) == (60, 30)
    assert [place.split(": ")[0] for place in outcome.skipped] == [f"{path}, line {i + 1}" for i in range(0, 30, 3)]


def test_text_files_and_instructions_do_not_go_together(tmp_path: Path, request_of: MakeRequest) -> None:
    (tmp_path / "a.txt").write_text("plain")
    with pytest.raises(ConfigError, match=r"a\.txt, line 1: plain text; --instructions needs JSON lines"):
        preprocess(request_of(tmp_path / "a.txt", instructions=True))


@pytest.fixture
def two_shards(tmp_path: Path, request_of: MakeRequest) -> list[Path]:
    """The first is good; the second is not, so that a first try leaves one part."""
    good = write_lines(tmp_path / "0.jsonl", [b'{"text": "the model"}'])
    bad = write_lines(tmp_path / "1.jsonl", [b'{"text": "is pruned"}', b"{"])
    with pytest.raises(ConfigError, match=r"1\.jsonl, line 2"):
        preprocess(request_of(good, bad))
    assert (tmp_path / "corpus.parts" / "000000.json").exists()
    write_lines(bad, [b'{"text": "is pruned"}'])
    return [good, bad]


def made(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_finished_part_is_used_again(
    two_shards: list[Path], tmp_path: Path, request_of: MakeRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = preprocess(request_of(*two_shards))
    assert "1 of 2 parts are there from an earlier run" in made(capsys)
    assert outcome.num_documents == 2
    preprocess(request_of(*two_shards, output_prefix=str(tmp_path / "again")))
    assert contents(tmp_path / "again") == contents(tmp_path / "corpus")
    assert not (tmp_path / "corpus.parts").exists()


@pytest.mark.parametrize("change", ["flag", "tokenizer", "text", "time", "lost bytes"])
def test_a_part_of_something_else_is_made_anew(
    change: str, two_shards: list[Path], tmp_path: Path, bpe_file: Path, request_of: MakeRequest
) -> None:
    more: dict[str, object] = {}
    if change == "flag":
        more = {"append_eod": False}
    elif change == "tokenizer":
        content = json.loads(bpe_file.read_text())
        content["model"]["merges"] = content["model"]["merges"][:50]
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        more = {"tokenizer": str(tmp_path / "tokenizer.json")}
    elif change == "text":
        write_lines(two_shards[0], [b'{"text": "another and longer text"}'])
    elif change == "time":
        os.utime(two_shards[0], (1, 1))
    else:
        path = tmp_path / "corpus.parts" / "000000.bin"
        path.write_bytes(path.read_bytes()[:-2])
    preprocess(request_of(*two_shards, **more))
    preprocess(request_of(*two_shards, output_prefix=str(tmp_path / "fresh"), **more))
    assert contents(tmp_path / "corpus") == contents(tmp_path / "fresh")


def test_an_old_corpus_stays_until_the_new_one_is_whole(
    two_shards: list[Path], tmp_path: Path, request_of: MakeRequest
) -> None:
    preprocess(request_of(*two_shards))
    before = contents(tmp_path / "corpus")
    write_lines(two_shards[1], [b"{"])
    with pytest.raises(ConfigError):
        preprocess(request_of(*two_shards))
    assert contents(tmp_path / "corpus") == before


def test_a_piece_where_the_fast_library_errs_is_made_by_the_own_one(
    tmp_path: Path, text_file: Path, bpe_file: Path, request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def encode(self, input: str) -> NDArray[np.uint32]:
            ids = np.array(load_tokenizer(bpe_file).encode_batch([input])[0], dtype=np.uint32)
            return ids[::-1] if "pruned" in input else ids

    monkeypatch.setattr(encode, "find_gigatoken", lambda: None)
    preprocess(request_of(text_file, output_prefix=str(tmp_path / "right")))
    monkeypatch.setattr(encode, "load_fast", lambda tokenizer: (Wrong(), ""))
    plain = write_lines(tmp_path / "plain.jsonl", [b'{"text": "the model"}'])
    assert preprocess(request_of(text_file, plain)).engines == {
        "gigatoken gives other ids for some of its texts": 1,
        encode.FAST: 1,
    }
    assert preprocess(request_of(text_file)).num_compared == 0
    assert contents(tmp_path / "corpus") == contents(tmp_path / "right")


def test_a_folder_in_the_way_is_said_before_the_work(tmp_path: Path, text_file: Path, request_of: MakeRequest) -> None:
    (tmp_path / "corpus.idx").mkdir()
    with pytest.raises(ConfigError, match=r"corpus\.idx is a folder; give another --output-prefix"):
        preprocess(request_of(text_file))


def test_an_outcome_sums_parts() -> None:
    assert Outcome.of([]) == Outcome(0, 0, 0, {}, 0, [], "")


def test_lines_are_counted_once_for_the_places_that_are_named(
    tmp_path: Path, request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [b'{"text": "%d"}' % i if i % 5 else b"{" for i in range(300)])
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    counted: list[int] = []
    count = places.count_lines

    def counts(file: BinaryIO, begin: int, end: int) -> int:
        counted.append(end - begin)
        return count(file, begin, end)

    monkeypatch.setattr(places, "count_lines", counts)
    outcome = preprocess(request_of(path, on_error="skip"))
    assert outcome.num_skipped == 60
    assert [place.split(": ")[0] for place in outcome.skipped] == [f"{path}, line {i + 1}" for i in range(0, 50, 5)]
    assert 0 < sum(counted) <= path.stat().st_size


def test_a_file_that_is_given_twice_is_said(
    tmp_path: Path, text_file: Path, request_of: MakeRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = preprocess(request_of(text_file, text_file.parent / "*.jsonl"))
    assert outcome.num_documents == 120
    assert f"{text_file} is given 2 times, and its documents are written as often" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["bin", "idx", "json"])
def test_a_damaged_part_is_made_anew(
    damage: str, two_shards: list[Path], tmp_path: Path, request_of: MakeRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "corpus.parts" / f"000000.{damage}"
    data = bytearray(path.read_bytes())
    data[2] ^= 1
    path.write_bytes(data)
    preprocess(request_of(*two_shards))
    assert "1 parts of an earlier run are damaged and will be made anew" in made(capsys)
    preprocess(request_of(*two_shards, output_prefix=str(tmp_path / "fresh")))
    assert contents(tmp_path / "corpus") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused_and_too_many_are_cores(
    workers: int, tmp_path: Path, text_file: Path, request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        preprocess(request_of(text_file, workers=workers))
    asked: list[int] = []
    load = preparation.load_tokenizer
    monkeypatch.setattr(
        preparation, "load_tokenizer", lambda path, threads: asked.append(threads) or load(path, threads)
    )
    preprocess(request_of(text_file, workers=100_000))
    assert 1 <= asked[0] <= (os.cpu_count() or 1)


def test_a_prompt_of_no_tokens_is_refused(text_file: Path, request_of: MakeRequest) -> None:
    with pytest.raises(ConfigError, match="--max-prompt-tokens -5 must be at least 1"):
        preprocess(request_of(text_file, instructions=True, max_prompt_tokens=-5))
