"""GPT-2's two files mean the tokenizer that a tokenizer.json with the same content means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.gpt2_files import NAMES
from megatron_distill.data.tokenizer import checksum, fingerprint, load_tokenizer


@pytest.fixture(params=NAMES, ids=["Hugging Face", "OpenAI"])
def folder(request: pytest.FixtureRequest, bpe_file: Path, tmp_path: Path) -> Path:
    model = json.loads(bpe_file.read_text())["model"]
    vocabulary, merges = request.param
    (tmp_path / vocabulary).write_text(json.dumps(model["vocab"]))
    (tmp_path / merges).write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""]))
    return tmp_path


def test_the_ids_are_those_of_the_tokenizer_json(folder: Path, bpe_file: Path, text_file: Path) -> None:
    ours, theirs = load_tokenizer(folder), load_tokenizer(bpe_file)
    texts = [text_file.read_text()[:5000], " two  spaces", "<|endoftext|>", "na\u00efve \U0001f600", ""]
    assert ours.encode_batch(texts) == theirs.encode_batch(texts)
    assert (ours.vocab_size, ours.eod_id) == (theirs.vocab_size, theirs.eod_id)
    assert ours.decode(ours.encode_batch(texts[:2])[0]) == texts[0]


def test_the_vocabulary_names_the_pair(folder: Path) -> None:
    [vocabulary] = [path for path in folder.iterdir() if path.suffix == ".json"]
    assert load_tokenizer(vocabulary).encode_batch(["half"]) == load_tokenizer(folder).encode_batch(["half"])
    assert fingerprint(vocabulary) == fingerprint(folder)


def test_the_fingerprint_is_that_of_the_tokenizer_json(folder: Path, bpe_file: Path) -> None:
    assert fingerprint(folder) == fingerprint(bpe_file)


def test_both_files_count_for_the_checksum(folder: Path) -> None:
    before = checksum(folder)
    [merges] = [path for path in folder.iterdir() if path.suffix != ".json"]
    merges.write_text(merges.read_text() + "q q\n")
    assert checksum(folder) != before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_merges_that_are_cut_off_are_refused(folder: Path, share: float) -> None:
    [merges] = [path for path in folder.iterdir() if path.suffix != ".json"]
    merges.write_bytes(merges.read_bytes()[: int(share * merges.stat().st_size)])
    with pytest.raises(ConfigError, match=rf"{merges.name} is cut off or of another tokenizer: .* download both again"):
        load_tokenizer(folder)


def test_a_vocabulary_that_is_cut_off_is_refused(folder: Path) -> None:
    [vocabulary] = [path for path in folder.iterdir() if path.suffix == ".json"]
    vocabulary.write_bytes(vocabulary.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=rf"{vocabulary.name} is damaged: it is not JSON"):
        load_tokenizer(folder)


def test_tokens_that_no_merge_makes_may_be_special(folder: Path) -> None:
    [vocabulary] = [path for path in folder.iterdir() if path.suffix == ".json"]
    ids = json.loads(vocabulary.read_text())
    names = ["<s>", "<pad>", "[MASK]", "madeupword0000"]
    vocabulary.write_text(json.dumps(ids | {name: len(ids) + i for i, name in enumerate(names)}))
    assert load_tokenizer(folder).vocab_size == len(ids) + 4


def test_a_tokenizer_json_beside_them_wins(folder: Path, bpe_file: Path) -> None:
    (folder / "tokenizer.json").write_bytes(bpe_file.read_bytes())
    assert load_tokenizer(folder).path == folder / "tokenizer.json"
    assert fingerprint(folder) == fingerprint(bpe_file)


def test_it_can_be_exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("export")
    load_tokenizer(folder).save_huggingface(out)
    assert load_tokenizer(out).encode_batch(["the model"]) == load_tokenizer(folder).encode_batch(["the model"])
