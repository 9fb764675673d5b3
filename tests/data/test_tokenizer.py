"""Both kinds of tokenizer: what they keep, and what transformers makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers.processors import TemplateProcessing

from megatron_distill.config.error import ConfigError
from megatron_distill.data.sentencepiece_json import to_tokenizers
from megatron_distill.data.tokenizer import Tokenizer, checksum, fingerprint, load_tokenizer, vocab_size, vocabulary

KINDS = ["bpe", "sentencepiece"]
TEXTS = [
    "",
    "the model learns",
    " two  spaces   before ",
    "line\nline\r\n\ttab\n",
    "日本語 модель naïve 😀👩‍👩‍👧 e\u0301",
    "<0x41> \x00\x7f \ufeff \U0010ffff",
    "-" * 77,
    "def f(x):\n    return x  # half",
]
# SentencePiece writes a space as U+2581, so that one character comes back as a space; the others are not text.
UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=40)
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizers(bpe_file: Path, sentencepiece_file: Path) -> dict[str, Tokenizer]:
    return {"bpe": load_tokenizer(bpe_file), "sentencepiece": load_tokenizer(sentencepiece_file)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    [ids] = tokenizers[kind].encode_batch([text])
    assert tokenizers[kind].decode(ids) == text


@settings(max_examples=60, deadline=None)
@example(texts=[" ", "  a", "</s>", "\u00a0\u3000"])
@given(texts=st.lists(UNICODE.filter(lambda text: END not in text), max_size=4))
@pytest.mark.parametrize("kind", KINDS)
def test_any_text_comes_back_and_texts_do_not_touch(
    tokenizers: dict[str, Tokenizer], kind: str, texts: list[str]
) -> None:
    tokenizer = tokenizers[kind]
    together = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(ids) for ids in together] == texts
    assert together == [tokenizer.encode_batch([text])[0] for text in texts]
    assert all(0 <= i < tokenizer.vocab_size for ids in together for i in ids)


def test_a_special_token_that_is_spelt_out_counts_as_the_token_in_a_tokenizer_json(
    tokenizers: dict[str, Tokenizer],
) -> None:
    assert tokenizers["bpe"].encode_batch([END]) == [[tokenizers["bpe"].eod_id]]
    assert tokenizers["sentencepiece"].eod_id not in tokenizers["sentencepiece"].encode_batch(["</s>"])[0]


def test_the_vocabulary_has_the_size_that_was_asked_for(bpe_file: Path, sentencepiece_file: Path) -> None:
    assert (vocab_size(bpe_file), vocab_size(sentencepiece_file)) == (400, 500)


def test_a_tokenizer_that_adds_a_beginning_adds_none_here(bpe_file: Path, tmp_path: Path) -> None:
    inner = Inner.from_file(str(bpe_file))
    inner.post_processor = TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    inner.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode_batch(["half"]) == load_tokenizer(bpe_file).encode_batch(["half"])


def test_tokens_added_later_count(bpe_file: Path, tmp_path: Path) -> None:
    content = json.loads(bpe_file.read_text())
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 1000, "content": "<far>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert max(i for ids in tokenizer.encode_batch(["a<far>"]) for i in ids) < tokenizer.vocab_size


def test_the_end_of_a_document(tokenizers: dict[str, Tokenizer]) -> None:
    assert tokenizers["bpe"].eod_id == 0  # <|endoftext|>
    assert tokenizers["sentencepiece"].eod_id == 2  # </s>


def test_a_tokenizer_without_an_end_is_said(bpe_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(bpe_file.read_text().replace(END, "<nothing>"))
    with pytest.raises(
        ConfigError, match=r"tokenizer\.json has no token that ends a document: .* </s>.* give --eod-token"
    ):
        _ = load_tokenizer(path).eod_id


def test_a_folder_means_its_tokenizer_json(bpe_file: Path) -> None:
    assert load_tokenizer(bpe_file.parent).path == bpe_file
    assert fingerprint(bpe_file.parent) == fingerprint(bpe_file)


def test_the_fingerprint_is_of_the_vocabulary_and_the_checksum_of_the_bytes(bpe_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    other.write_bytes(bpe_file.read_bytes() + b"\n")
    assert fingerprint(other) == fingerprint(bpe_file)
    assert checksum(other) != checksum(bpe_file)
    content = json.loads(bpe_file.read_text())
    ids = content["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    other.write_text(json.dumps(content))
    assert fingerprint(other) != fingerprint(bpe_file)
    assert vocabulary(other)["a"] == vocabulary(bpe_file)["b"]


def test_every_form_of_a_tokenizer_has_one_fingerprint(
    bpe_file: Path, sentencepiece_file: Path, tmp_path: Path
) -> None:
    to_tokenizers(sentencepiece_file).save(str(tmp_path / "tokenizer.json"))
    assert fingerprint(tmp_path / "tokenizer.json") == fingerprint(sentencepiece_file)
    assert vocabulary(tmp_path) == vocabulary(sentencepiece_file)
    load_tokenizer(bpe_file).save_huggingface(tmp_path)
    assert fingerprint(tmp_path) == fingerprint(bpe_file) != fingerprint(sentencepiece_file)


@pytest.fixture
def folder(bpe_file: Path, tmp_path: Path) -> Path:
    """A folder with the tokens <s> (400), <eos> (401) and <|end|> (402) more."""
    inner = Inner.from_file(str(bpe_file))
    inner.add_special_tokens(["<s>", "<eos>", "<|end|>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content))


def test_the_end_token_is_the_one_that_the_folder_names(folder: Path) -> None:
    assert load_tokenizer(folder).eod_id == 0, "nothing names one"
    write(folder / "generation_config.json", eos_token_id=[401, 402])
    assert load_tokenizer(folder).eod_id == 401
    write(folder / "config.json", eos_token_id=402)
    assert load_tokenizer(folder).eod_id == 402
    write(folder / "tokenizer_config.json", eos_token={"content": "<eos>", "lstrip": False})
    assert load_tokenizer(folder).eod_id == 401
    write(folder / "tokenizer_config.json", eos_token="<|end|>", unknown=[1])
    assert load_tokenizer(folder).eod_id == load_tokenizer(folder / "tokenizer.json").eod_id == 402
    write(folder / "tokenizer_config.json", eos_token=None)
    write(folder / "special_tokens_map.json", eos_token="<eos>")
    assert load_tokenizer(folder).eod_id == 401


def test_a_tokenizer_of_another_name_is_not_what_the_folder_describes(folder: Path) -> None:
    write(folder / "tokenizer_config.json", eos_token="<|end|>")
    shutil.copy(folder / "tokenizer.json", folder / "mine.json")
    assert load_tokenizer(folder / "mine.json").eod_id == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer_config.json", {"eos_token": "<nowhere>"}, "names the eos_token '<nowhere>', which tokenizer.json"),
        ("tokenizer_config.json", {"eos_token": {"lstrip": False}}, "names the eos_token None, which"),
        ("tokenizer_config.json", {"eos_token": 3}, r"tokenizer_config\.json is damaged: expected"),
        ("config.json", {"eos_token_id": 403}, "names the end token 403, but has only 403 tokens"),
        ("config.json", {"eos_token_id": -1}, "names the end token -1"),
        ("config.json", {"eos_token_id": "0"}, r"config\.json is damaged: expected"),
    ],
)
def test_a_folder_that_names_no_token_is_said(folder: Path, name: str, content: dict[str, object], said: str) -> None:
    write(folder / name, **content)
    with pytest.raises(ConfigError, match=said):
        _ = load_tokenizer(folder).eod_id


def test_the_begin_token_is_the_post_processors(folder: Path, sentencepiece_file: Path) -> None:
    write(folder / "tokenizer_config.json", bos_token="<s>", add_bos_token=True)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.named_bos_id) == (None, 400), "as transformers has it: the file alone decides"
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.post_processor = TemplateProcessing(single="<s> $A <eos>", special_tokens=[("<s>", 400), ("<eos>", 401)])
    inner.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder).bos_id == 400
    inner.post_processor = TemplateProcessing(single="<s> <s> $A", special_tokens=[("<s>", 400)])
    inner.save(str(folder / "tokenizer.json"))
    assert (load_tokenizer(folder).bos_id, load_tokenizer(folder).prefix()) == (None, [400, 400])


def test_a_model_begins_texts_where_its_folder_says_so(sentencepiece_file: Path, tmp_path: Path) -> None:
    model = tmp_path / "tokenizer.model"
    shutil.copy(sentencepiece_file, model)
    assert (load_tokenizer(tmp_path).bos_id, load_tokenizer(tmp_path).named_bos_id) == (None, 1)
    write(tmp_path / "tokenizer_config.json", add_bos_token=True, bos_token="<s>", eos_token="<unk>")
    assert (load_tokenizer(tmp_path).bos_id, load_tokenizer(tmp_path).eod_id) == (1, 0)
    assert load_tokenizer(model).bos_id == 1


def test_a_tokenizer_without_an_end_is_exported_without_one(bpe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(bpe_file.read_text().replace(END, "<nothing>"))
    load_tokenizer(tmp_path / "mine.json").save_huggingface(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["eos_token"] is config["bos_token"] is config["pad_token"] is None


@pytest.mark.parametrize("name", ["tokenizer.json", "spm.model"])
def test_what_is_no_tokenizer_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"{name} is no "):
        load_tokenizer(tmp_path / name)


@pytest.mark.parametrize("name", ["tokenizer.json", "spm.model", ""])
def test_a_missing_tokenizer_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no tokenizer at .*; give a tokenizer\.json"):
        load_tokenizer(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a model"])
def test_transformers_gives_the_same_ids(
    tokenizers: dict[str, Tokenizer], text_file: Path, tmp_path: Path, kind: str, beside: bool
) -> None:
    from transformers import AutoTokenizer, CohereConfig

    ours = tokenizers[kind]
    ours.save_huggingface(tmp_path)
    if beside:  # a model's config.json may make transformers choose another class of tokenizer
        CohereConfig().save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = TEXTS + [json.loads(line)["text"] for line in text_file.read_text().splitlines()[:20]]
    for text, ids in zip(texts, ours.encode_batch(texts), strict=True):
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == ours.decode(ids) == text
    assert theirs.eos_token_id == theirs.pad_token_id == ours.eod_id
    assert len(theirs) == ours.vocab_size
