"""The tokens around each document are those of the tokenizer, or of the flags, and are recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from megatron_distill.config.error import ConfigError
from megatron_distill.data.corpus_record import read_corpus_record
from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.prepare.frame import NONE, Frame, frame_of
from megatron_distill.data.prepare.instructions import InstructionCorpus
from megatron_distill.data.prepare.outcome import Outcome
from megatron_distill.data.prepare.preprocess import Request, preprocess
from megatron_distill.data.tokenizer import fingerprint, load_tokenizer

TEXTS = ["the model", "", "is pruned <s> again"]


@pytest.fixture
def llama(bpe_file: Path, tmp_path: Path) -> Path:
    """A folder whose tokenizer begins texts with <s> (400) and names <eos> (401) as its end."""
    folder = tmp_path / "llama"
    folder.mkdir()
    inner = Tokenizer.from_file(str(bpe_file))
    inner.add_special_tokens(["<s>", "<eos>"])
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 400)])
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "bos_token": "<s>"}))
    return folder


def make(tmp_path: Path, tokenizer: Path, **more: object) -> Outcome:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    fields: dict[str, object] = {"inputs": [str(path)], "tokenizer": str(tokenizer), "workers": 1}
    return preprocess(Request(output_prefix=str(tmp_path / "corpus"), **(fields | more)))  # type: ignore[arg-type]


def test_the_bytes_are_those_of_megatrons_script_with_a_begin_token(llama: Path, tmp_path: Path) -> None:
    outcome = make(tmp_path, llama)
    inner = Tokenizer.from_file(str(llama / "tokenizer.json"))
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    for text in TEXTS:  # tools/preprocess_data.py: ids with special tokens, and the end token if there are any
        ids = [*inner.encode(text).ids, 401]
        builder.add_document(torch.tensor(ids, dtype=torch.int64), [len(ids)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for kind in ("bin", "idx"):
        assert (tmp_path / f"corpus.{kind}").read_bytes() == (tmp_path / f"theirs.{kind}").read_bytes()
    assert outcome.frame == "each document begins with <s> (400) and ends with <eos> (401)"
    record = read_corpus_record(tmp_path / "corpus")
    assert record is not None
    assert (record.bos_id, record.eod_id, record.vocab_size, record.num_documents) == (400, 401, 402, 3)
    assert (record.tokenizer, record.num_tokens) == (fingerprint(llama), outcome.num_tokens)


@pytest.mark.parametrize(
    ("flags", "begins", "ends", "frame"),
    [
        ({"prepend_bos": False}, [], [401], "each document ends with <eos> (401)"),
        ({"append_eod": False}, [400], [], "each document begins with <s> (400)"),
        ({"append_eod": False, "prepend_bos": False}, [], [], "documents have neither a begin nor an end token"),
        ({"eod_token": "<s>", "prepend_bos": True}, [400], [400], "begins with <s> (400) and ends with <s> (400)"),
        ({"eod_token": "7"}, [400], [7], "and ends with "),
    ],
)
def test_flags_decide(
    llama: Path, tmp_path: Path, flags: dict[str, object], begins: list[int], ends: list[int], frame: str
) -> None:
    assert frame in make(tmp_path, llama, **flags).frame
    corpus, tokenizer = IndexedCorpus(tmp_path / "corpus"), load_tokenizer(llama)
    [ids] = tokenizer.encode_batch(TEXTS[:1])
    assert corpus.document_tokens(0).tolist() == [*begins, *ids, *ends]
    record = read_corpus_record(tmp_path / "corpus")
    assert record is not None
    assert ([record.bos_id] if record.bos_id is not None else []) == begins
    assert ([record.eod_id] if record.eod_id is not None else []) == ends


def test_a_prompt_begins_as_a_document_does(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps({"instruction": "Say the model.", "output": "the model"}) + "\n")
    prefix = str(tmp_path / "corpus")
    preprocess(
        Request(
            inputs=[str(path)],
            tokenizer=str(llama),
            output_prefix=prefix,
            instructions=True,
            max_prompt_tokens=5,
            workers=1,
        )
    )
    corpus = InstructionCorpus(prefix)
    assert corpus.prompt(0)[0] == 400 and corpus.prompt(0).size == 5
    assert corpus.response(0)[-1] == 401 and 400 not in corpus.response(0)


def test_gpt2_and_models_have_no_begin_token(bpe_file: Path, sentencepiece_file: Path) -> None:
    for path, eod in ((bpe_file, 0), (sentencepiece_file, 2)):
        frame = frame_of(load_tokenizer(path), prepend_bos=None, append_eod=True, eod_token=None)
        assert frame == Frame(NONE, eod)
    model = load_tokenizer(sentencepiece_file)
    assert frame_of(model, prepend_bos=True, append_eod=False, eod_token=None) == Frame(1, NONE)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"eod_token": "<nowhere>"}, "--eod-token <nowhere> must be a token of .*, or an id below its 400"),
        ({"eod_token": "400"}, "--eod-token 400 must be a token"),
        ({"eod_token": "9" * 30}, "must be a token"),
        ({"eod_token": "-1"}, "--eod-token -1 must be a token"),
        ({"eod_token": "7", "append_eod": False}, "--eod-token 7 and --no-append-eod contradict each other"),
        ({"prepend_bos": True}, "names no token that begins a text; leave --prepend-bos out"),
    ],
)
def test_tokens_that_are_not_there_are_said(
    bpe_file: Path, tmp_path: Path, flags: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make(tmp_path, bpe_file, **flags)
    assert not (tmp_path / "corpus.parts").exists()


def test_two_begin_tokens_are_said(llama: Path, tmp_path: Path) -> None:
    inner = Tokenizer.from_file(str(llama / "tokenizer.json"))
    inner.post_processor = TemplateProcessing(single="<s> <eos> $A", special_tokens=[("<s>", 400), ("<eos>", 401)])
    inner.save(str(llama / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"begins every text with 2 tokens \(<s> <eos>\).* give --no-prepend-bos"):
        make(tmp_path, llama)
    make(tmp_path, llama, prepend_bos=False)


def test_a_tokenizer_without_an_end_token_needs_the_flag(bpe_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "deepseek.json"
    path.write_text(bpe_file.read_text().replace("<|endoftext|>", "<\uff5cend\u2581of\u2581sentence\uff5c>"))
    with pytest.raises(ConfigError, match="has no token that ends a document.*give --eod-token"):
        make(tmp_path, path)
    assert "ends with <\uff5cend" in make(tmp_path, path, eod_token="<\uff5cend\u2581of\u2581sentence\uff5c>").frame
    make(tmp_path, path, append_eod=False)


def test_other_tokens_make_other_parts(llama: Path, tmp_path: Path) -> None:
    make(tmp_path, llama)
    before = (tmp_path / "corpus.bin").read_bytes()
    make(tmp_path, llama, prepend_bos=False)
    assert len((tmp_path / "corpus.bin").read_bytes()) < len(before)
