"""MiniLM's relations and the attention-score loss against the materialised computation: time, and peak memory above
the inputs.

python benchmarks/relation_loss.py

One sequence of one layer of the size of the 300M model: 16 heads of 64. Both sides end with the gradients of the
student's queries, keys and values. fp32 on a CPU, bf16 on a GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import report, seconds_in_turns  # noqa: E402
from peak import OPTION, peak_above_inputs, peak_in_process  # noqa: E402

from megatron_distill.losses.attention_scores import attention_score_loss  # noqa: E402
from megatron_distill.losses.relations import relation_loss  # noqa: E402

HEADS, HEAD_DIM = 16, 64
LOSSES = ("minilm", "attention")


def main() -> None:
    """Measure both losses, or the peak of one side of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7, help="calls of each side that count")
    parser.add_argument(OPTION, choices=[f"{name}-{side}" for name in LOSSES for side in ("ours", "peer")])
    given = parser.parse_args()
    if given.only:
        sides(16)[given.only]()  # what a first call loads is not the computation's
        print(peak_above_inputs(sides(given.seq)[given.only]))
        return
    calls = sides(given.seq)
    for name in LOSSES:
        sizes = {"loss": name, "seq": given.seq, "heads": HEADS}
        names = (f"{name}-ours", f"{name}-peer")
        peaks = [peak_in_process(side, "--seq", given.seq) / 2**20 for side in names]
        report("peak_memory", *peaks, "MiB", **sizes)
        seconds = seconds_in_turns(*(calls[side] for side in names), rounds=given.rounds, warm_up=1)
        report("time", *(s * 1e3 for s in seconds), "ms", **sizes)


def sides(seq: int) -> dict[str, Callable[[], None]]:
    """A call of each, on the same tensors."""
    cuda = torch.cuda.is_available()
    options = {"device": "cuda" if cuda else "cpu", "dtype": torch.bfloat16 if cuda else torch.float32}
    torch.manual_seed(0)
    student, teacher = ([torch.randn(seq, 1, HEADS, HEAD_DIM, **options) for _ in "qkv"] for _ in "st")
    for x in student:
        x.requires_grad_()
    q, k, v = student
    tq, tk, tv = teacher
    mask = torch.ones(seq, 1, device=q.device)

    def finish(loss: Tensor) -> None:
        loss.backward()
        q.grad = k.grad = v.grad = None

    def minilm() -> None:
        compare = {"relation_heads": HEADS, "group": None}
        qk = relation_loss((q, k), (tq, tk), mask, **compare)
        finish(qk + relation_loss((v, v), (tv, tv), mask, **compare))

    def minilm_peer() -> None:
        finish(plain_relation((q, k), (tq, tk)) + plain_relation((v, v), (tv, tv)))

    def attention() -> None:
        finish(attention_score_loss((q, k), (tq, tk), mask, group=None))

    def attention_peer() -> None:
        past = torch.ones(seq, seq, dtype=torch.bool, device=q.device).tril()
        finish(((scores(q, k) - scores(tq, tk)) * past).square().sum())

    return {
        "minilm-ours": minilm,
        "minilm-peer": minilm_peer,
        "attention-ours": attention,
        "attention-peer": attention_peer,
    }


def scores(x1: Tensor, x2: Tensor) -> Tensor:
    """[batch, heads, queries, keys] in fp32."""
    a, b = (x.permute(1, 2, 0, 3) for x in (x1, x2))
    return (a @ b.transpose(-1, -2)).float() / math.sqrt(a.shape[-1])


def plain_relation(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """The relation loss with all scores at once, as published code has it."""
    future = torch.ones(len(student[0]), len(student[0]), dtype=torch.bool, device=student[0].device).triu(1)
    log_q = scores(*student).masked_fill(future, torch.finfo(torch.float32).min).log_softmax(-1)
    with torch.no_grad():
        log_p = scores(*teacher).masked_fill(future, torch.finfo(torch.float32).min).log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) / HEADS


if __name__ == "__main__":
    main()
