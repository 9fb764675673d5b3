"""Our adapter for lm-evaluation-harness against the harness's own Hugging Face backend, on one exported model.

python benchmarks/evaluate.py

Both get the same requests in the same process. `scores` counts those whose log-likelihoods differ by less than 1e-3
nats and for which both say the same of whether they were the likeliest. The requests are multiple choice (four
continuations of each context, as in HellaSwag), answers of one word after long contexts (as in BoolQ), and single
sentences (as in BLiMP). The peer gets the best of several batch sizes.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch  # noqa: E402
from exported_model import words, write_model  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from measure import report, seconds_in_turns  # noqa: E402

from megatron_distill.checkpoint.inference import (  # noqa: E402
    find_model,
    inference_layout,
    load_for_inference,
    load_tokenizer_of,
)
from megatron_distill.parallel.worlds import Role, open_world  # noqa: E402

if TYPE_CHECKING:
    from megatron_distill.evaluation.harness import HarnessModel

_TRIED = 32
"""Requests by which the peer's batch size is chosen."""


def main() -> None:
    """Measure each kind of request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1, help="calls of each side that count")
    parser.add_argument("--peer-batch-sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(Path(folder), layers=given.layers, hidden=given.hidden, vocab=given.vocab)
        stored = find_model(path)
        layout = inference_layout(stored, 1, 1, 1)
        with open_world((Role("evaluation", layout),)):
            from megatron_distill.evaluation.crew import Crew
            from megatron_distill.evaluation.harness import HarnessModel
            from megatron_distill.models.inference import reading

            length = stored.shape.max_position_embeddings
            with reading(load_for_inference(stored, layout)) as inference:
                tokenizer = load_tokenizer_of(stored)
                ours = HarnessModel(Crew(inference), tokenizer, max_length=length, batch_tokens=4096)
                device = "cuda" if torch.cuda.is_available() else "cpu"
                options = {"pretrained": str(path), "dtype": "float32", "device": device, "max_length": length}
                peers = [HFLM(batch_size=size, **options) for size in given.peer_batch_sizes]
                for kind in given.kinds:
                    measure(kind, KINDS[kind](given.requests), ours, peers, given.rounds)


def measure(kind: str, pairs: list[tuple[str, str]], ours: HarnessModel, peers: list[HFLM], rounds: int) -> None:
    """Print `scores` and `time` of one kind of request."""
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    some = requests[:_TRIED]
    tried = [seconds_in_turns(lambda: None, lambda p=p: p.loglikelihood(some, True), rounds=1)[1] for p in peers]
    best = peers[tried.index(min(tried))]
    found: dict[int, list[tuple[float, bool]]] = {}

    def work(side: HarnessModel | HFLM) -> None:
        found[id(side)] = side.loglikelihood(requests, disable_tqdm=True)

    seconds = seconds_in_turns(lambda: work(ours), lambda: work(best), rounds=rounds, warm_up=0)
    both = list(zip(found[id(ours)], found[id(best)], strict=True))
    equal = sum(abs(a - b) < 1e-3 and x == y for (a, x), (b, y) in both)
    difference = max(abs(a - b) for (a, _), (b, _) in both)
    report(f"scores_{kind}", equal, len(pairs), "requests", largest_difference=difference)
    report(f"time_{kind}", *seconds, "s", requests=len(pairs), peer_batch_size=best.batch_size)


def choices(count: int) -> list[tuple[str, str]]:
    """Contexts of 40 to 80 words, each with four continuations of 5 to 30."""
    generator = random.Random(1)
    found = []
    for _ in range(count // 4):
        context = words(generator.randint(40, 80), generator)
        found += [(context, " " + words(generator.randint(5, 30), generator)) for _ in range(4)]
    return found


def answers(count: int) -> list[tuple[str, str]]:
    """Contexts of 60 to 160 words, each with two answers of a word."""
    generator = random.Random(2)
    contexts = [words(generator.randint(60, 160), generator) for _ in range(count // 2)]
    return [(context, answer) for context in contexts for answer in (" ka", " lomin")]


def sentences(count: int) -> list[tuple[str, str]]:
    """Single sentences of 5 to 15 words."""
    generator = random.Random(3)
    return [("", words(generator.randint(5, 15), generator)) for _ in range(count)]


KINDS: dict[str, Callable[[int], list[tuple[str, str]]]] = {
    "choices": choices,
    "answers": answers,
    "sentences": sentences,
}


if __name__ == "__main__":
    main()
