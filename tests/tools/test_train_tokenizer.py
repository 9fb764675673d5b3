"""tools/train_tokenizer.py as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_distill.data.tokenizer import load_tokenizer
from tests.support.tools import refusal, run_tool

KINDS = [("bpe", "tokenizer.json"), ("sentencepiece", "spm.model")]


def flags(text: Path, kind: str, output: Path, size: int = 400) -> list[object]:
    return ["--input", text, "--kind", kind, "--vocab-size", size, "--output", output]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_it_has_the_size_and_knows_the_text(kind: str, name: str, text_file: Path, tmp_path: Path) -> None:
    done = run_tool("train_tokenizer", *flags(text_file, kind, tmp_path / name))
    tokenizer = load_tokenizer(tmp_path / name)
    assert tokenizer.vocab_size == 400 and "400 tokens in" in done.stdout
    [ids] = tokenizer.encode_batch(["seventeen tokens"])
    assert len(ids) < 12  # characters alone would be 16
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_the_same_text_gives_the_same_file(
    kind: str, name: str, text_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first: Path = request.getfixturevalue(f"{kind}_file")
    size = load_tokenizer(first).vocab_size
    run_tool("train_tokenizer", *flags(text_file, kind, tmp_path / name, size))
    assert (tmp_path / name).read_bytes() == first.read_bytes()


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_bad_line_leaves_nothing(kind: str, name: str, text_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(text_file.read_bytes() + b'{"text": 3}\n')
    assert "bad.jsonl, line 61: 'text' holds no text" in refusal("train_tokenizer", *flags(bad, kind, tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_wrong_paths_are_said(kind: str, name: str, text_file: Path, tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty.jsonl"
    empty.touch()
    assert "there is no file" in refusal("train_tokenizer", *flags(missing, kind, tmp_path / name))
    assert "cannot be written" in refusal("train_tokenizer", *flags(text_file, kind, missing / name))
    assert "hold no text" in refusal("train_tokenizer", *flags(empty, kind, tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_the_ending_must_fit_the_kind(text_file: Path, tmp_path: Path) -> None:
    assert "must end in .json with --kind bpe" in refusal(
        "train_tokenizer", *flags(text_file, "bpe", tmp_path / "a.model")
    )
    assert "must end in .model with --kind sentencepiece" in refusal(
        "train_tokenizer", *flags(text_file, "sentencepiece", tmp_path / "a.json")
    )


def test_sizes_that_cannot_be_are_said(text_file: Path, tmp_path: Path) -> None:
    small = refusal("train_tokenizer", *flags(text_file, "bpe", tmp_path / "a.json", 319))
    assert "--vocab-size 319 must be at least 320" in small
    large = refusal("train_tokenizer", *flags(text_file, "sentencepiece", tmp_path / "a.model", 100_000))
    assert "SentencePiece cannot make 100000 tokens of this text: Vocabulary size too high" in large
    assert list(tmp_path.iterdir()) == []


def test_only_a_tokenizer_is_replaced(text_file: Path, bpe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "config.json"
    output.write_text('{"hidden_size": 64}')
    said = refusal("train_tokenizer", *flags(text_file, "bpe", output))
    assert "config.json is there and no tokenizer; give another, or remove it" in said
    assert output.read_text() == '{"hidden_size": 64}'
    output.write_bytes(bpe_file.read_bytes() + b"\n")
    run_tool("train_tokenizer", *flags(text_file, "bpe", output))
    assert output.read_bytes() == bpe_file.read_bytes()
