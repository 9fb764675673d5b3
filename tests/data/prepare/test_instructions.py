"""Instructions become prompts and responses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare.corpus import BadLine
from megatron_distill.data.prepare.frame import NONE, Frame
from megatron_distill.data.prepare.instructions import InstructionCorpus, Instructions, prompt_of
from megatron_distill.data.tokenizer import load_tokenizer
from tests.support.tools import refusal, run_tool

ROWS = [
    {"instruction": "Name three {layers}.", "output": "one, two, three"},
    {"instruction": "Half it.", "input": "the model {instruction}", "output": " 8 "},
    {"instruction": "Learn.", "input": "", "output": "\n\nnaïve", "more": 1},
]
PROMPTS = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\nName three {layers}.\n\n### Response:\n",
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request."
    "\n\n### Instruction:\nHalf it.\n\n### Input:\nthe model {instruction}\n\n### Response:\n",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\nLearn.\n\n### Response:\n",
]


def flags(folder: Path, tokenizer: Path, rows: list[dict[str, object]]) -> list[object]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ("--input", folder / "rows.jsonl", "--tokenizer", tokenizer, "--output-prefix", folder / "corpus")
    return [*names, "--instructions"]


def test_the_template_is_the_published_one() -> None:
    assert [prompt_of(row) for row in ROWS] == PROMPTS


@pytest.mark.parametrize("kind", ["bpe_file", "sentencepiece_file"])
def test_a_document_is_a_prompt_and_a_response(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    run_tool("preprocess_data", *flags(tmp_path, path, ROWS), "--max-prompt-tokens", 10_000)
    tokenizer, corpus = load_tokenizer(path), InstructionCorpus(tmp_path / "corpus")
    assert len(corpus) == len(ROWS)
    for i, (row, prompt) in enumerate(zip(ROWS, PROMPTS, strict=True)):
        alone, both = tokenizer.encode_batch([prompt, prompt + str(row["output"])])
        assert corpus.prompt(i).tolist() == alone
        assert corpus.response(i).tolist() == both[len(alone) :] + [tokenizer.eod_id]
        assert (corpus.prompt_lengths[i], corpus.response_lengths[i]) == (len(alone), len(both) - len(alone) + 1)


def test_a_long_prompt_keeps_its_beginning(bpe_file: Path, tmp_path: Path) -> None:
    run_tool("preprocess_data", *flags(tmp_path, bpe_file, ROWS), "--max-prompt-tokens", 20)
    tokenizer, corpus = load_tokenizer(bpe_file), InstructionCorpus(tmp_path / "corpus")
    [alone, both] = tokenizer.encode_batch([PROMPTS[0], PROMPTS[0] + str(ROWS[0]["output"])])
    assert corpus.prompt(0).tolist() == alone[:20]
    assert corpus.response(0).tolist() == both[len(alone) :] + [tokenizer.eod_id]


def test_megatron_core_reads_two_sequences_a_document(bpe_file: Path, tmp_path: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    run_tool("preprocess_data", *flags(tmp_path, bpe_file, ROWS))
    theirs, ours = IndexedDataset(str(tmp_path / "corpus")), InstructionCorpus(tmp_path / "corpus")
    assert theirs.document_indices.tolist() == [0, 2, 4, 6]
    assert theirs[3].tolist() == ours.response(1).tolist()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"output": "x"}, "no 'instruction' among its fields output; with --instructions a line has"),
        ({"instruction": "x"}, "no 'output'"),
        ({"instruction": "x", "output": None}, "'output' holds no text but NoneType"),
        ({"instruction": "x", "input": 3, "output": "y"}, "'input' holds no text but int"),
        ({"instruction": "x", "output": " \n"}, "'output' is empty"),
    ],
)
def test_a_row_without_its_fields_is_said(row: dict[str, object], says: str) -> None:
    with pytest.raises(BadLine) as raised:
        Instructions(Frame(NONE, 0), 256).texts(json.dumps(row).encode())
    assert says in str(raised.value)


def test_a_damaged_index_is_refused_or_read_as_it_was(bpe_file: Path, tmp_path: Path) -> None:
    run_tool("preprocess_data", *flags(tmp_path, bpe_file, ROWS))
    index = tmp_path / "corpus.idx"
    sound, corpus = index.read_bytes(), InstructionCorpus(tmp_path / "corpus")
    before = [corpus.prompt(i).tolist() for i in range(len(corpus))]
    refused = 0
    for at in range(len(sound)):
        for value in (0x00, 0x01, 0x7F, 0xFF):
            index.write_bytes(sound[:at] + bytes([value]) + sound[at + 1 :])
            try:
                corpus = InstructionCorpus(tmp_path / "corpus")
            except ConfigError:
                refused += 1
                continue
            # Offsets are not read, and the number of a document's first sequence is a multiple of two.
            assert [corpus.prompt(i).tolist() for i in range(len(corpus))] == before, (at, value)
    assert refused > 200
    index.write_bytes(sound[:40])
    with pytest.raises(ConfigError, match=r"corpus\.idx is damaged: its header says"):
        InstructionCorpus(tmp_path / "corpus")


def test_the_line_is_named(bpe_file: Path, tmp_path: Path) -> None:
    said = refusal("preprocess_data", *flags(tmp_path, bpe_file, [*ROWS, {"instruction": "x"}]))
    assert "rows.jsonl, line 4: no 'output'" in said


def test_a_corpus_of_texts_is_no_instructions(text_file: Path, bpe_file: Path, tmp_path: Path) -> None:
    names = ("--input", text_file, "--tokenizer", bpe_file, "--output-prefix", tmp_path / "corpus")
    run_tool("preprocess_data", *names)
    with pytest.raises(ConfigError, match="60 documents of 60 sequences, not two in each"):
        InstructionCorpus(tmp_path / "corpus")
    with pytest.raises(ConfigError, match=r"there is no .*missing\.idx"):
        InstructionCorpus(tmp_path / "missing")
