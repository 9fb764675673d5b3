"""tools/preprocess_data.py as a user runs it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.tokenizer import load_tokenizer
from tests.support.tools import refusal, run_tool


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def flags(text: Path, tokenizer: Path, prefix: Path) -> list[object]:
    return ["--input", text, "--tokenizer", tokenizer, "--output-prefix", prefix]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def corpus_bytes(prefix: Path) -> list[bytes]:
    return [Path(f"{prefix}.{kind}").read_bytes() for kind in ("bin", "idx")]


@pytest.mark.parametrize("kind", ["bpe_file", "sentencepiece_file"])
def test_each_document_is_its_tokens_and_an_end(
    kind: str, text_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(kind)
    done = run_tool("preprocess_data", *flags(text_file, path, tmp_path / "corpus"))
    tokenizer, corpus = load_tokenizer(path), IndexedCorpus(tmp_path / "corpus")
    expected = [ids + [tokenizer.eod_id] for ids in tokenizer.encode_batch(texts(text_file))]
    assert [corpus.document_tokens(i).tolist() for i in range(corpus.num_documents)] == expected
    assert f"{len(expected)} documents, {corpus.num_tokens:,} tokens" in done.stdout
    assert names(tmp_path) == ["corpus.bin", "corpus.idx", "corpus.meta.json"]


def test_files_of_all_kinds_in_the_order_they_are_named(bpe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "z.txt").write_text("first")
    (tmp_path / "shard-1.json.gz").write_bytes(gzip.compress(b'{"body": "third"}\n'))
    (tmp_path / "shard-0.json.gz").write_bytes(gzip.compress(b'{"body": "second"}\n'))
    run_tool(
        "preprocess_data",
        *("--input", tmp_path / "z.txt", f"{tmp_path}/shard-*.json.gz", "--text-key", "body", "--no-append-eod"),
        *("--tokenizer", bpe_file.parent, "--output-prefix", tmp_path / "corpus"),
    )
    tokenizer, corpus = load_tokenizer(bpe_file), IndexedCorpus(tmp_path / "corpus")
    assert [tokenizer.decode(corpus.document_tokens(i).tolist()) for i in range(3)] == ["first", "second", "third"]
    assert corpus.num_documents == 3


@pytest.mark.parametrize("kind", ["bpe_file", "sentencepiece_file"])
def test_the_number_of_workers_changes_nothing(
    kind: str, text_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(kind)
    for workers in (1, 3):
        run_tool("preprocess_data", *flags(text_file, path, tmp_path / f"by{workers}"), "--workers", workers)
    assert corpus_bytes(tmp_path / "by1") == corpus_bytes(tmp_path / "by3")


def test_a_bad_line_leaves_nothing(text_file: Path, bpe_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(text_file.read_bytes() + b'{"text": "cut\n')
    said = refusal("preprocess_data", *flags(bad, bpe_file, tmp_path / "corpus"))
    assert "bad.jsonl, line 61: not JSON" in said and said.endswith("nothing was written")
    assert names(tmp_path) == ["bad.jsonl"]


def test_a_bad_line_leaves_the_old_corpus(text_file: Path, bpe_file: Path, tmp_path: Path) -> None:
    run_tool("preprocess_data", *flags(text_file, bpe_file, tmp_path / "corpus"))
    before = corpus_bytes(tmp_path / "corpus")
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"url": "bad"}\n')
    refusal("preprocess_data", *flags(tmp_path / "bad.jsonl", bpe_file, tmp_path / "corpus"))
    assert corpus_bytes(tmp_path / "corpus") == before
    assert names(tmp_path) == ["bad.jsonl", "corpus.bin", "corpus.idx", "corpus.meta.json"]


def test_wrong_paths_are_said(text_file: Path, bpe_file: Path, tmp_path: Path) -> None:
    corpus, missing = tmp_path / "corpus", tmp_path / "missing"
    assert "there is no file" in refusal("preprocess_data", *flags(missing, bpe_file, corpus))
    assert "there is no tokenizer at" in refusal("preprocess_data", *flags(text_file, missing, corpus))
    assert "is no tokenizer.json" in refusal("preprocess_data", *flags(text_file, text_file, corpus))
    assert "cannot be written" in refusal("preprocess_data", *flags(text_file, bpe_file, missing / "corpus"))
    assert "cannot be written" in refusal("preprocess_data", *flags(text_file, bpe_file, text_file / "corpus"))
    assert names(tmp_path) == []


def test_no_text_and_no_workers_are_said(text_file: Path, bpe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert "hold no text" in refusal("preprocess_data", *flags(tmp_path / "empty.jsonl", bpe_file, tmp_path / "corpus"))
    arguments = flags(text_file, bpe_file, tmp_path / "corpus")
    assert "--workers 0 must be at least 1" in refusal("preprocess_data", *arguments, "--workers", 0)
    assert names(tmp_path) == ["empty.jsonl"]
