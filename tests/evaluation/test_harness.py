"""The adapter against the harness's own Hugging Face backend, on the same folder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.ranks import ranks
from tests.support.readable_models import save_readable_model
from tests.support.worlds import student_world

WORDS = ("the layer", "model of half", "its size", "Größe", "日本語", "def return", "self.weight", "+ 0.5", "# TODO")


@contextmanager
def both(folder: Path, tokenizer: Path, precision: str = "fp32") -> Iterator[tuple[Any, Any]]:
    """Our adapter and the harness's."""
    import torch

    from megatron_distill.checkpoint.inference import (
        find_model,
        inference_layout,
        load_for_inference,
        load_tokenizer_of,
    )
    from megatron_distill.evaluation.crew import Crew
    from megatron_distill.evaluation.harness import HarnessModel
    from megatron_distill.evaluation.request import Evaluation
    from megatron_distill.evaluation.transformers_model import open_model
    from megatron_distill.models.inference import reading

    stored = find_model(save_readable_model(folder / "model", tokenizer))
    layout, dtype = inference_layout(stored, 1, 1, 1), torch.bfloat16 if precision == "bf16" else torch.float32
    asked = Evaluation(model=folder / "model", tasks=("piqa",), backend="hf", precision=precision, seq_length=128)
    with student_world(), reading(load_for_inference(stored, layout, dtype=dtype)) as inference:
        ours = HarnessModel(Crew(inference), load_tokenizer_of(stored), max_length=128, batch_tokens=300)
        yield ours, open_model(asked)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]  # type: ignore[arg-type]


def text(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, k=words))


@ranks(1)
def check_all(rank: int, tmp_path: Path, tokenizer: Path) -> None:
    generator = random.Random(5)
    contexts = [text(generator, count) for count in (1, 12, 20, 60)]
    pairs = [(context, " " + text(generator, n)) for context in contexts for n in (1, 1, 6)]
    pairs += [("ends in spaces  ", "half"), ("", "the layer of the model"), ("", "<|endoftext|>half"), ("a\n", " b")]
    pairs += [("<|endoftext|>the layer", " of")]
    with both(tmp_path, tokenizer) as (ours, theirs):
        requests = instances("loglikelihood", pairs)
        for pair, found, wanted in zip(
            pairs, ours.loglikelihood(requests), theirs.loglikelihood(requests), strict=True
        ):
            assert abs(found[0] - wanted[0]) < 1e-3, (pair, found, wanted)
            assert found[1] == wanted[1], pair
        requests = instances("loglikelihood_rolling", [(text(generator, count),) for count in (1, 30, 150)])
        rolled = zip(ours.loglikelihood_rolling(requests), theirs.loglikelihood_rolling(requests), strict=True)
        for found, wanted in rolled:
            assert abs(found - wanted) < 2e-3
        settings: dict[str, Any] = {"until": ["\n\n", "half"], "max_gen_toks": 24, "do_sample": False}
        other = settings | {"until": [], "max_gen_toks": 5}
        asked = [(contexts[0], settings), (contexts[1], settings), (contexts[3], other), (contexts[2], settings)]
        requests = instances("generate_until", asked)
        said = ours.generate_until(requests)
        assert said == theirs.generate_until(requests)
        assert any(said)


def test_scores_and_texts_are_those_of_the_harness(tmp_path: Path, bpe_file: Path) -> None:
    check_all(tmp_path=tmp_path, tokenizer=bpe_file)


@ranks(1)
def check_long(rank: int, tmp_path: Path, tokenizer: Path) -> None:
    from megatron_distill.config.error import ConfigError

    pairs = [("the layer", " of"), ("its size", " " + text(random.Random(3), 200))]
    with both(tmp_path, tokenizer) as (ours, theirs):
        requests = instances("loglikelihood", pairs)
        assert all(score < 0 for score, _ in ours.loglikelihood(requests))
        (note,) = ours.notes()
        assert "1 of 2 continuations" in note
        ours.loglikelihood(requests[:1])
        assert ours.notes() == []
        theirs.loglikelihood(requests[:1])
        with pytest.raises(ConfigError, match=r"a continuation has \d+ tokens, and the model reads 128"):
            theirs.loglikelihood(requests)


def test_a_continuation_that_is_too_long_is_said(tmp_path: Path, bpe_file: Path) -> None:
    check_long(tmp_path=tmp_path, tokenizer=bpe_file)


@ranks(1)
def check_bf16(rank: int, tmp_path: Path, tokenizer: Path) -> None:
    """Log-probabilities of one token that are rounded to bf16 would tie: between 4 and 8 they have steps of 1/32."""
    import torch

    pairs = [("the layer of", f" {word}") for word in ("the", "a", "half", "model", "x", "0", "of", "size")]
    with both(tmp_path, tokenizer, precision="bf16") as (ours, theirs):
        requests = instances("loglikelihood", pairs)
        for model in (ours, theirs):
            scores = torch.tensor([score for score, _ in model.loglikelihood(requests)], dtype=torch.float64)
            assert (scores.bfloat16() != scores).sum() >= len(pairs) - 1


def test_half_precision_makes_no_ties(tmp_path: Path, bpe_file: Path) -> None:
    check_bf16(tmp_path=tmp_path, tokenizer=bpe_file)


@pytest.mark.parametrize(("bos", "prefix"), [(0, 0), (1, 1), (None, 2)])
def test_an_empty_context_is_the_token_that_begins_a_text(bos: int | None, prefix: int) -> None:
    from megatron_distill.evaluation.harness import HarnessModel

    tokenizer = SimpleNamespace(bos_token_id=bos, eos_token_id=2)
    model = HarnessModel(None, tokenizer, max_length=8, batch_tokens=8)  # type: ignore[arg-type]
    assert (model.prefix_token_id, model.eot_token_id) == (prefix, 2)
