"""The fused distillation loss against the plain PyTorch computation: time, and peak memory above the inputs.

python benchmarks/kd_loss.py

Both sides start from the final hidden states and the output matrices of student and teacher, and end with the
cross-entropy, KL(teacher || student) and the gradients of the student's hidden states and matrix. As in training, the
matrix' gradient is added to an fp32 buffer that is there before on both sides; `fresh` is without such a buffer, and
`separable` leaves the weights of the two losses open until the backward pass. fp32 on a CPU, bf16 on a GPU.
Where liger-kernel or nvidia-modelopt are installed, their losses are peers too (`liger`, chunked and compiled, and
`modelopt`, from whole logits).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import report, seconds_in_turns  # noqa: E402
from peak import OPTION, peak_above_inputs, peak_in_process  # noqa: E402

from megatron_distill.losses.distill_logits import distill_logits  # noqa: E402
from megatron_distill.losses.divergences import divergence  # noqa: E402
from megatron_distill.losses.teacher_signal import HiddenTeacher  # noqa: E402

PAIRS = {"": ("ours", "peer"), "_fresh": ("fresh", "fresh_peer"), "_separable": ("separable", "fresh_peer")}
"""What is compared with what, by what follows `time` and `peak_memory` in the name."""
for package, other in (("liger_kernel", "liger"), ("modelopt", "modelopt")):
    if importlib.util.find_spec(package):
        PAIRS[f"_{other}"] = ("ours", other)


def main() -> None:
    """Measure every width, or the peak of one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[1024, 2048], help="widths of both models")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocab", type=int, default=50304)
    parser.add_argument("--rounds", type=int, default=3, help="calls of each side that count")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), help="which comparisons, '' for the main one")
    parser.add_argument(
        OPTION,
        choices=sorted({side for pair in PAIRS.values() for side in pair}),
        help="print the peak bytes of one",
    )
    given = parser.parse_args()
    if given.only:
        sides(8, 128, 64)[given.only]()  # what a first call loads is not the computation's
        print(peak_above_inputs(sides(given.tokens, given.vocab, given.hidden[0])[given.only]))
        return
    for hidden in given.hidden:
        sizes = {"tokens": given.tokens, "vocab": given.vocab, "hidden": hidden}
        options = ["--tokens", given.tokens, "--vocab", given.vocab, "--hidden", hidden]
        calls = sides(given.tokens, given.vocab, hidden)
        for name in given.pairs:
            ours, peer = PAIRS[name]
            peaks = [peak_in_process(side, *options) / 2**20 for side in (ours, peer)]
            report(f"peak_memory{name}", *peaks, "MiB", **sizes)
            seconds = seconds_in_turns(calls[ours], calls[peer], rounds=given.rounds, warm_up=1)
            report(f"time{name}", *(s * 1e3 for s in seconds), "ms", **sizes)


def sides(tokens: int, vocab: int, hidden: int) -> dict[str, Callable[[], None]]:
    """A call of each, on the same tensors."""
    cuda = torch.cuda.is_available()
    options = {"device": "cuda" if cuda else "cpu", "dtype": torch.bfloat16 if cuda else torch.float32}
    torch.manual_seed(0)
    student, teacher = (torch.randn(tokens, hidden, **options) for _ in "st")
    weight, teacher_weight = (torch.randn(vocab, hidden, **options).mul_(hidden**-0.5) for _ in "st")
    student.requires_grad_()
    weight.requires_grad_()
    labels = torch.randint(vocab, (tokens,), device=student.device)
    mask = torch.ones(tokens, device=student.device)
    buffer = torch.ones_like(weight, dtype=torch.float32, requires_grad=False)  # written, hence resident
    which = divergence("forward-kl")

    def fused(weights: tuple[float, float] | None, into: torch.Tensor | None = None) -> None:
        signal = HiddenTeacher(teacher, teacher_weight)
        options = {"which": which, "group": None, "weights": weights, "weight_gradient": into}
        found = distill_logits(student, weight, signal, labels, mask, **options)
        loss = found.lm_sum + found.kd_sum if found.objective is None else found.objective
        loss.backward()
        student.grad = weight.grad = None

    def peer(into: torch.Tensor | None = None) -> None:
        log_q = (student @ weight.t()).float().log_softmax(-1)
        with torch.no_grad():
            log_p = (teacher @ teacher_weight.t()).float().log_softmax(-1)
        loss = F.nll_loss(log_q, labels, reduction="sum")
        loss = loss + F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        del log_p
        loss.backward()
        if into is not None:
            into.add_(weight.grad)
        student.grad = weight.grad = None

    def backward(loss: torch.Tensor) -> None:
        loss.backward()
        buffer.add_(weight.grad)
        student.grad = weight.grad = None

    def liger() -> None:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        loss = LigerFusedLinearJSDLoss(weight_hard_loss=1.0, weight_soft_loss=1.0, beta=0.0)  # KL(teacher || student)
        backward(loss(student, weight, teacher, teacher_weight, labels))

    def modelopt() -> None:
        from modelopt.torch.distill.losses import LogitsDistillationLoss

        logits = student @ weight.t()
        with torch.no_grad():
            target = teacher @ teacher_weight.t()
        soft = LogitsDistillationLoss(reduction="none")(logits.float(), target.float())
        backward(F.cross_entropy(logits.float(), labels, reduction="sum") + soft.sum())

    return {
        "liger": liger,
        "modelopt": modelopt,
        "ours": lambda: fused((1.0, 1.0), buffer),
        "fresh": lambda: fused((1.0, 1.0)),
        "separable": lambda: fused(None),
        "peer": lambda: peer(buffer),
        "fresh_peer": peer,
    }


if __name__ == "__main__":
    main()
