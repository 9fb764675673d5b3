"""The adapter against the harness's own Hugging Face backend, on the same folder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.ranks import ranks
from tests.support.readable_models import save_readable_model
from tests.support.worlds import student_world

WORDS = ("the layer", "model of half", "its size", "Größe", "日本語", "def return", "self.weight", "+ 0.5", "# TODO")


@contextmanager
def both(folder: Path, tokenizer: Path) -> Iterator[tuple[Any, Any]]:
    """Our adapter and the harness's."""
    from lm_eval.models.huggingface import HFLM

    from megatron_distill.checkpoint.inference import (
        find_model,
        inference_layout,
        load_for_inference,
        load_tokenizer_of,
    )
    from megatron_distill.evaluation.crew import Crew
    from megatron_distill.evaluation.harness import HarnessModel
    from megatron_distill.models.inference import reading

    stored = find_model(save_readable_model(folder / "model", tokenizer))
    with student_world(), reading(load_for_inference(stored, inference_layout(stored, 1, 1, 1))) as inference:
        ours = HarnessModel(Crew(inference), load_tokenizer_of(stored), max_length=128, batch_tokens=300)
        theirs = HFLM(pretrained=str(folder / "model"), dtype="float32", device="cpu", batch_size=4)
        yield ours, theirs


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
