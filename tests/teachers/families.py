"""A PaLM student of teachers of every family: loss and gradient against transformers and plain PyTorch in float64.

The vocabularies differ in size or padding: the student has 75 tokens in 80 rows, which all have a probability; public
teachers have 75 in 128 rows, of which padding has none; PaLM-like ones have 76 in 76 rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses import oracles
from tests.support.public_models import MODELS, public_shape, save_public_model
from tests.support.ranks import launch
from tests.teachers.parity import (
    Agreement,
    Case,
    Plain,
    Step,
    base_run,
    compare,
    distil_flags,
    first_batches,
    steps,
    whole_tensors,
)

VOCAB, TOP_K, KEPT = 75, 20, [0, 2, 3, 5]
STUDENT = ["--vocab-size", str(VOCAB)]
LOSSES = {"forward KL": "vanilla", "symmetric": "vanilla:divergence=symmetric,beta=0.3"}
TOPK = ("--bridge-wire", "topk", "--bridge-top-k", str(TOP_K))
CASES = [
    Case((1, 1, 1), None),
    Case((2, 1, 1), None, ("--sequence-parallel",)),
    Case((1, 1, 2), None),
    Case((1, 1, 1), (1, 1, 1)),
    Case((1, 2, 1), (2, 1, 1)),
    Case((2, 1, 1), (1, 2, 1)),
    Case((1, 1, 1), (1, 1, 2)),
    Case((2, 1, 1), (1, 1, 1), ("--bridge-wire", "logits")),
    Case((1, 1, 1), (2, 1, 1), TOPK),
]


def write_tokenizer(path: Path, size: int, *, backwards: bool = False) -> Path:
    """A tokenizer.json of `size` tokens, the first of which are those of every smaller one unless it is `backwards`."""
    from tokenizers import Tokenizer, models

    numbers = range(size - 1, 0, -1) if backwards else range(1, size)
    words = ["<|endoftext|>", *(f"w{i}" for i in numbers)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<|endoftext|>")).save(str(path))
    return path


def make_teachers(folder: Path, names: list[str]) -> None:
    """Random models of transformers under theirs/NAME, the same as runs under ours/NAME."""
    launch(_make, 1, 300.0, folder, {"names": names})


def _make(rank: int, tmp_path: Path, names: list[str]) -> None:
    from megatron_distill.checkpoint.from_hf import import_model

    for name in names:
        theirs = save_public_model(name, tmp_path / "theirs" / name)
        write_tokenizer(theirs / "tokenizer.json", public_shape(name).vocab_size)
        import_model(theirs, tmp_path / "ours" / name)


def teacher_logits(folder: Path, name: str, tokens: Tensor) -> Tensor:
    """What transformers gives in float64, [batch, seq, vocabulary]."""
    from transformers import AutoModelForCausalLM

    from megatron_distill.checkpoint.huggingface import model_class
    from megatron_distill.models.families import find_model_type

    family = find_model_type(MODELS[name][0], name)
    loader = model_class(family) if family.code else AutoModelForCausalLM
    model = loader.from_pretrained(folder / "theirs" / name).double().eval()
    with torch.no_grad():
        return model(tokens).logits.double()


def divergence(loss: str, teacher: Tensor, student: Tensor, top_k: int) -> Tensor:
    """Mean over tokens, from logits; the teacher's are of the first tokens of the student's vocabulary. Where the
    teacher has no token its logit is -1e4, which only the reverse KL can tell from a probability of 0."""
    p, q = F.pad(teacher, (0, student.shape[1] - teacher.shape[1]), value=-1e4).log_softmax(1), student.log_softmax(1)
    if top_k:
        indices = p.topk(top_k).indices
        p, q = (torch.cat((x.gather(1, indices), x.scatter(1, indices, -1e9).logsumexp(1, True)), 1) for x in (p, q))
    forward, reverse = ((a.exp() * (a - b)).sum(1).mean() for a, b in ((p, q), (q, p)))
    return 0.7 * forward + 0.3 * reverse if "symmetric" in loss else forward


def check_families(
    case: Case, folder: Path, corpus: Path, base: Path, where: Path, names: Sequence[str], losses: Sequence[str]
) -> dict[tuple[str, str], Agreement]:
    """Run a layout with some teachers and losses, in one launch, and compare; `folder` is that of `make_teachers`."""
    tokenizer = write_tokenizer(where / "tokenizer.json", VOCAB)
    flags = [*distil_flags(base, corpus), "--tokenizer", str(tokenizer)]
    methods = {
        json.dumps([name, loss]): [LOSSES[loss], "--teacher-load", str(folder / "ours" / name)]
        for name in names
        for loss in losses
    }
    launch(steps, case.ranks, 300.0, where, {"common": [*flags, *case.arguments()], "methods": methods})
    tokens, labels = first_batches(flags)[0]
    weights = {n: w for n, w in whole_tensors(base).items() if not n.startswith("optimizer.")}
    shown = {name: teacher_logits(folder, name, tokens).transpose(0, 1).flatten(0, 1) for name in names}
    found = {}
    for number, key in enumerate(methods):
        name, loss = json.loads(key)
        top_k = TOP_K if "topk" in case.flags else 0
        step = oracle(weights, tokens, labels, shown[name], LOSSES[loss], top_k)
        found[name, loss] = compare(where / f"method{number}", [step])
    return found


def oracle(base: dict[str, Tensor], tokens: Tensor, labels: Tensor, teacher: Tensor, loss: str, top_k: int) -> Step:
    """Means of both components, and the gradient of the objective by every weight of the student."""
    pruned = tuple(f"decoder.layers.{i}." for i in (1, 4))
    student = Plain({n: w for n, w in base.items() if not n.startswith(pruned)}, 4, trains=True)
    logits = student.show(tokens, KEPT)["logits"].flatten(0, 1)
    lm = oracles.lm(logits, labels.t().flatten()).mean()
    kd = divergence(loss, teacher, logits, top_k)
    scale = min(max(lm.item() / kd.item(), 1e-4), 1e4)
    names, leaves = zip(*student.weights.items(), strict=True)
    gradients = torch.autograd.grad(lm + scale * kd, leaves)
    return Step({"lm": lm, "logits": kd}, dict(zip(names, gradients, strict=True)))


def student_base(folder: Path, corpus: Path) -> Path:
    """The student before its layers are pruned."""
    return base_run(folder, corpus, STUDENT)
