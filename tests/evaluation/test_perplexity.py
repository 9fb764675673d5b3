"""Perplexity and bits per byte, against sums by hand."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedWriter
from megatron_distill.data.tokenizer import load_tokenizer
from megatron_distill.evaluation.perplexity import Stream, perplexity, read_corpus, read_text, window_losses
from tests.models.test_layouts import shape_of
from tests.support.ranks import launch
from tests.support.worlds import student_world

LAYOUTS = {"one": (1, 1, 1), "tp2": (2, 1, 1), "pp2": (1, 2, 1), "dp2": (1, 1, 2)}


def on_layout(rank: int, layout: str) -> None:
    from megatron_distill.config.run import Layout
    from megatron_distill.models.build import BuildOptions, build_decoder, initialise
    from megatron_distill.models.inference import reading

    tp, pp, dp = LAYOUTS[layout]
    windows = np.random.default_rng(0).integers(0, 75, (7, 20))
    found = {}
    for name in ("palm-tiny", "opt"):
        os.environ["STORE_FILE"] += name
        shape = shape_of(name)
        with student_world(tp=tp, pp=pp):
            sizes = Layout(tensor=tp, pipeline=pp, data=dp, num_microbatches=1)
            model = build_decoder(shape, (0, 1, 3), sizes, BuildOptions(torch.float32, "sdpa"))
            initialise(model, seed=2)
            with reading(model) as inference:
                found[name] = window_losses(inference, windows, 64)
                if layout == "one":
                    tokens = torch.from_numpy(windows)
                    positions = torch.arange(19).expand(7, -1)
                    logits = model(tokens[:, :-1], positions, None)
                    direct = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
                    assert np.allclose(found[name], direct.sum(1).numpy(), rtol=1e-5)
    path = Path(os.environ["STORE_FILE"]).parent / "found.pt"
    if rank == 0:
        torch.save(found, path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The losses on one rank, which are those of a plain pass."""
    folder = tmp_path_factory.mktemp("alone")
    launch(on_layout, 1, 60.0, folder, {"layout": "one"})
    return torch.load(folder / "found.pt", weights_only=False)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one"])
def test_losses_are_the_same_on_every_layout(layout: str, alone: dict[str, Any], tmp_path: Path) -> None:
    launch(on_layout, 2, 60.0, tmp_path, {"layout": layout})
    found = torch.load(tmp_path / "found.pt", weights_only=False)
    for name, wanted in alone.items():
        assert np.allclose(found[name], wanted, rtol=1e-5), name


def losses_of(stream: Stream, seq_length: int, **options: Any) -> tuple[dict[str, Any], list[Any]]:
    """With a model whose loss on a window is the sum of its tokens but the first."""
    seen: list[Any] = []

    def call(work: Any, windows: Any, batch_tokens: int) -> Any:
        assert work is window_losses
        seen.extend(windows.tolist())
        return windows[:, 1:].sum(1).astype(float)

    found = perplexity(call, stream, seq_length=seq_length, vocab_size=100, batch_tokens=64, **options)
    return found, seen


def test_windows_share_nothing_and_their_first_token_is_not_predicted() -> None:
    stream = Stream(np.array([9, 1, 0, 9, 3, 2, 9]), num_bytes=14, source="x")
    found, seen = losses_of(stream, 3)
    assert seen == [[9, 1, 0], [9, 3, 2]]
    assert found["perplexity"].value == pytest.approx(math.exp((1 + 5) / 4))
    assert found["perplexity"].items == 4
    assert found["bits_per_byte"].value == pytest.approx((1 + 5) / 4 / math.log(2) * 7 / 14)
    assert found["perplexity"].stderr == pytest.approx(math.exp(1.5) * np.std([0.5, 2.5], ddof=1) / math.sqrt(2))
    assert losses_of(stream, 3, max_tokens=5)[1] == [[9, 1, 0]]


def test_text_and_corpus_are_the_same_stream(bpe_file: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bpe_file)
    texts = ["the model of half its size", "Größe 日本語", "", "def return self.weight"]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with IndexedWriter(tmp_path / "corpus", np.dtype(np.uint16)) as writer:
        for ids in tokenizer.encode_batch([text for text in texts if text]):
            writer.add_document([*ids, tokenizer.eod_id])
    from_text = read_text(tmp_path / "text.jsonl", tokenizer, tokenizer.eod_id)
    from_corpus = read_corpus(tmp_path / "corpus", tokenizer, None)
    assert from_text.tokens.tolist() == from_corpus.tokens.tolist()
    assert from_text.num_bytes == from_corpus.num_bytes == sum(len(text.encode()) for text in texts)
    begun = read_text(tmp_path / "text.jsonl", tokenizer, 7, begins=True).tokens.tolist()
    ids = [ids for ids in tokenizer.encode_batch(texts) if ids]
    assert begun == [token for document in ids for token in (7, *document)]
    first = read_corpus(tmp_path / "corpus", tokenizer, 3)
    assert first.tokens.tolist() == from_corpus.tokens.tolist()[: len(first.tokens)]
    assert len(first.tokens) < len(from_corpus.tokens)


def test_text_that_is_no_use(bpe_file: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bpe_file)
    with pytest.raises(ConfigError, match="there is no text file"):
        read_text(tmp_path / "none.jsonl", tokenizer, 0)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    with pytest.raises(ConfigError, match="bad.jsonl, line 2: no 'text'"):
        read_text(tmp_path / "bad.jsonl", tokenizer, 0)
    with pytest.raises(ConfigError, match="x gives 3 tokens, fewer than the 4 of one window"):
        losses_of(Stream(np.array([1, 2, 3]), 3, "x"), 4)
    with pytest.raises(ConfigError, match="has the token 100, but the model knows 100"):
        losses_of(Stream(np.array([1, 100]), 3, "x"), 2)
