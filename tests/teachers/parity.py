"""Loss and gradient of a distillation step on many layouts against plain PyTorch in float64.

    python -m tests.teachers.parity > docs/parity.md        every layout and method, in a few minutes

A step runs as in training, over real gloo ranks: worlds, bridge, hooks, pipeline schedule, data-parallel reduction. Its
gradient is read off the optimizer state in its checkpoint: Lion's momentum after one step is (1 - beta2) times it.
Where layers leave one by one, it is the last of several at a learning rate of 0, of which the first has no teacher and
all but the last have frozen layers; the momentum that they leave is compared.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses import oracles
from tests.support.ranks import launch
from tests.support.runs import MODEL

SEQ, BATCH, VOCAB, BETA2 = 32, 4, 60, 0.95
METHODS = {
    "vanilla": ["vanilla"],
    "vanilla, reverse KL, temperature 2": ["vanilla:divergence=reverse-kl,temperature=2"],
    "miniLM": ["vanilla", "minilm"],
    "homotopic": ["vanilla", "hidden-states", "embedding-table", "attention-scores"],
    "homotopic, attention outputs": ["vanilla:weight=2", "hidden-states", "embedding-table", "attention-outputs"],
}


@dataclass(frozen=True)
class Removal:
    """Which layers leave: the first before step `seed`, the others `gap` steps apart, all at once if it is 0."""

    layers: tuple[int, ...] = (1, 4)
    of: int = 6
    seed: int = 0
    gap: int = 0

    @property
    def steps(self) -> int:
        """Until the last layer has left, and one more."""
        return self.seed + self.gap * (len(self.layers) - 1) + 1

    def kept(self, step: int) -> list[int]:
        """Layers in step `step`."""
        gone = {layer for number, layer in enumerate(self.layers) if self.seed + number * self.gap <= step}
        return [layer for layer in range(self.of) if layer not in gone]

    def flags(self) -> list[str]:
        """Of a run of `steps` steps."""
        tokens = ("--pruning-seed-tokens", self.seed, "--pruning-gap-tokens", self.gap)
        found = ["--pruning-layout", ",".join(map(str, self.layers)), "--train-iters", str(self.steps)]
        found += [f"{x * BATCH * SEQ}" if isinstance(x, int) else x for x in tokens]
        return found if self.steps == 1 else [*found, "--lr", "0"]


@dataclass(frozen=True)
class Case:
    """A layout of both roles: tensor, pipeline and data parallel sizes."""

    student: tuple[int, int, int]
    teacher: tuple[int, int, int] | None
    """None: colocated."""
    flags: tuple[str, ...] = ()
    removal: Removal = Removal()

    @property
    def ranks(self) -> int:
        """Of the job."""
        size = self.student[0] * self.student[1] * self.student[2]
        return size if self.teacher is None else size + self.teacher[0] * self.teacher[1] * self.teacher[2]

    @property
    def name(self) -> str:
        """For tables and tests."""
        role = "TP {} PP {} DP {}"
        teacher = "colocated" if self.teacher is None else role.format(*self.teacher)
        names = [f"student {role.format(*self.student)}", f"teacher {teacher}", *self.flags]
        if self.removal.layers != Removal.layers:
            until = " frozen until they leave" if self.removal.gap else " removed"
            names.append(f"layers {'-'.join(map(str, self.removal.layers))} of {self.removal.of}{until}")
        return ", ".join(names).replace("wire, ", "wire ").replace("granularity, ", "granularity ")

    def arguments(self) -> list[str]:
        """Flags of the layout."""
        found = ["--tensor-model-parallel-size", self.student[0], "--pipeline-model-parallel-size", self.student[1]]
        found += ["--teacher-placement", "colocated" if self.teacher is None else "separate"]
        if self.teacher is not None:
            for name, size in zip(("tensor-model", "pipeline-model", "data"), self.teacher, strict=True):
                found += [f"--teacher-{name}-parallel-size", size]
        return [*map(str, found), *self.flags, *self.removal.flags()]


SP, TSP = "--sequence-parallel", "--teacher-sequence-parallel"
THREE = Removal((1, 2, 4))
GAPS3, GAPS4 = Removal((2, 3, 4), seed=1, gap=1), Removal((2, 3, 4, 5), of=8, seed=1, gap=1)
"""At first and later too, all layers of the second of three or four stages are frozen."""
CASES = [
    Case((1, 1, 1), None),
    Case((2, 1, 1), None),
    Case((2, 1, 1), None, (SP,)),
    Case((1, 1, 2), None),
    Case((1, 1, 1), (1, 1, 1)),
    Case((1, 2, 1), (2, 1, 1)),
    Case((1, 1, 2), (1, 1, 1)),
    Case((1, 1, 1), (1, 1, 2)),
    Case((2, 1, 1), (1, 1, 1)),
    Case((1, 1, 1), (2, 1, 1), (TSP,)),
    Case((2, 1, 1), (4, 1, 1), (SP,)),
    Case((4, 1, 1), (2, 1, 1), (SP, TSP)),
    Case((1, 2, 1), (1, 2, 1)),
    Case((2, 2, 1), (1, 2, 1), (SP,)),
    Case((1, 2, 2), (1, 1, 2)),
    Case((1, 1, 1), (1, 1, 1), ("--bridge-wire", "logits")),
    Case((2, 1, 1), (1, 1, 1), ("--bridge-wire", "logits")),
    Case((1, 2, 1), (2, 1, 1), ("--recompute-granularity", "full")),
    Case((1, 4, 1), (1, 1, 1)),
    Case((1, 1, 1), (1, 3, 1)),
    Case((1, 3, 1), (1, 1, 1), removal=THREE),
    Case((2, 3, 1), (1, 1, 1), (SP,), THREE),
    Case((1, 3, 2), (1, 1, 1), removal=THREE),
    Case((1, 1, 1), None, removal=GAPS3),
    Case((1, 3, 1), (1, 1, 1), removal=GAPS3),
    Case((2, 3, 1), (1, 2, 1), (SP,), GAPS3),
    Case((1, 3, 2), (1, 3, 1), removal=GAPS3),
    Case((1, 4, 1), (1, 1, 1), removal=GAPS4),
    Case((1, 4, 1), (1, 4, 1), removal=GAPS4),
]


def steps(rank: int, tmp_path: Path, common: list[str], methods: dict[str, list[str]]) -> None:
    """On every rank of a job: one training step of each method, in one pair of worlds after the other."""
    from unittest import mock

    import torch.distributed as dist

    from megatron_distill.config.flags import parse
    from megatron_distill.config.run import RunConfig
    from megatron_distill.parallel import worlds
    from megatron_distill.training.loop import run
    from megatron_distill.training.plan import make_plan
    from megatron_distill.training.teaching import bridges, build_terms, roles, serve

    torch.use_deterministic_algorithms(True)
    for number, losses in enumerate(methods.values()):
        flags = [*common, "--save", str(tmp_path / f"method{number}"), "--loss", *losses]
        plan = make_plan(parse(RunConfig, flags), world_size=worlds.job_size())
        terms = build_terms(plan)
        file = str(tmp_path / f"meet{number}")
        store = dist.FileStore(file, worlds.job_size()) if worlds.job_size() > 1 else dist.HashStore()
        with (
            contextlib.redirect_stdout(io.StringIO()),  # the table alone goes there
            mock.patch.object(worlds, "_store", return_value=store),
            worlds.open_world(roles(plan), timeout_minutes=1.0, bridges=bridges(plan, terms)) as world,
        ):
            if world.role.name == "teacher":
                serve(plan, world, terms)
            else:
                run(plan, world, terms)


def base_run(folder: Path, corpus: Path, flags: Sequence[str] = ()) -> Path:
    """A model whose every weight matters: large random weights, norms away from 1."""
    folder.mkdir(exist_ok=True)
    launch(_base, 1, 120.0, folder, {"corpus": str(corpus), "more": list(flags)})
    return folder / "base"


def _base(rank: int, tmp_path: Path, corpus: str, more: list[str]) -> None:
    from megatron_distill.config.flags import parse
    from megatron_distill.config.run import RunConfig
    from megatron_distill.parallel.worlds import Role, open_world
    from megatron_distill.training.plan import make_plan
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student, save_student

    flags = [*common_flags(corpus), "--save", str(tmp_path / "base"), "--init-method-std", "0.15", *more]
    plan = make_plan(parse(RunConfig, flags), world_size=1)
    with open_world((Role("student", plan.layout),)):
        student = build_student(plan, 0, weights=None, with_optimizer=False)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for name, parameter in student.model.named_parameters():
                if "norm" in name:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        save_student(student, TrainState())


def common_flags(corpus: object) -> list[str]:
    """Of every run here: one step, no clipping."""
    return [
        *MODEL,
        *("--num-layers", str(Removal.of), "--seq-length", str(SEQ), "--data-path", str(corpus)),
        *("--micro-batch-size", "1", "--global-batch-size", str(BATCH), "--train-iters", "1", "--lr-warmup-iters", "0"),
        *(
            "--precision",
            "fp32",
            "--clip-grad",
            "0",
            "--beta2",
            str(BETA2),
            "--log-interval",
            "1",
            "--split",
            "90,10,0",
        ),
        *("--eval-iters", "1", "--lr", "1e-3"),
    ]


def distil_flags(base: Path, corpus: Path) -> list[str]:
    """Of every distillation step here."""
    keep = common_flags(corpus)
    layers = keep.index("--num-layers")
    del keep[layers : layers + 2]
    del keep[: len(MODEL)]
    return [*keep, "--load", str(base)]


class Plain:
    """The oracle: a PaLM decoder in float64 from a checkpoint's whole tensors, with all it shows."""

    def __init__(self, weights: dict[str, Tensor], heads: int, *, trains: bool) -> None:
        self.weights = {name: w.double().requires_grad_(trains) for name, w in weights.items()}
        self.heads = heads

    def show(self, tokens: Tensor, layers: list[int]) -> dict[Any, Tensor]:
        """Every tap for tokens [batch, seq], under (kind, layer)."""
        w, shown = self.weights, {}
        h = F.embedding(tokens, w["embedding.word_embeddings.weight"]).transpose(0, 1)
        for i in layers:
            prefix = f"decoder.layers.{i}."
            part = {n.removeprefix(prefix): x for n, x in w.items() if n.startswith(prefix)}
            h, found = self._block(part, h)
            shown |= {(kind, i): x for kind, x in found.items()}
            shown["hidden", i] = h
        shown["final"] = F.layer_norm(h, h.shape[-1:], w["decoder.final_layernorm.weight"], None, 1e-5)
        shown["logits"] = shown["final"] @ w["embedding.word_embeddings.weight"].t()
        return shown

    def _block(self, w: dict[str, Tensor], h: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = h.shape[-1]
        width, ffn = hidden // self.heads, 2 * hidden // self.heads
        u = F.layer_norm(h, (hidden,), w["norm.weight"], None, 1e-5)
        z = (u @ w["linear_in.weight"].t()).unflatten(-1, (self.heads, -1))
        q, k, v, up, gate = z.split([width] * 3 + [ffn] * 2, dim=-1)
        q = rotate(F.layer_norm(q, (width,), w["q_layernorm.weight"], None, 1e-5))
        k = rotate(F.layer_norm(k, (width,), w["k_layernorm.weight"], None, 1e-5))
        scores = oracles.scores(q, k, self.heads).masked_fill(~oracles.causal(len(h)), -torch.inf)
        out = torch.einsum("bhst,tbhd->sbhd", scores.softmax(-1), v)
        mixed = torch.cat((out, up * F.silu(gate)), dim=-1).flatten(-2)
        shown = {"queries": q, "keys": k, "values": v, "attention_output": out}
        return h + mixed @ w["linear_out.weight"].t(), shown


def rotate(x: Tensor) -> Tensor:
    """Rotary positions on [seq, batch, heads, head dim]."""
    half = x.shape[-1] // 2
    theta = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = (torch.arange(len(x))[:, None] * theta)[:, None, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)


@dataclass(frozen=True)
class Step:
    """What the oracle says of a step."""

    means: dict[str, Tensor]
    """Of every component."""
    gradients: dict[str, Tensor]
    """Of the objective by every weight of the student that trains."""


def components(student: dict[Any, Tensor], teacher: dict[Any, Tensor], kept: list[int], losses: list[str]) -> dict:
    """Every component's mean, from what both models show."""
    mask, found = torch.ones(student["final"].shape[:2], dtype=torch.float64), {}
    tokens, heads = mask.numel(), student["queries", kept[0]].shape[2]
    names = [item.partition(":")[0] for item in losses]
    if "vanilla" in names:
        reverse = "reverse-kl" in " ".join(losses)
        tau = 2.0 if "temperature=2" in " ".join(losses) else 1.0
        both = [x["logits"].flatten(0, 1) / tau for x in (teacher, student)]
        found["logits"] = oracles.divergence("reverse-kl" if reverse else "forward-kl", *both).mean() * tau**2
    if "minilm" in names:
        (sq, sk, sv), (tq, tk, tv) = (
            [shown[kind, kept[-1]] for kind in ("queries", "keys", "values")] for shown in (student, teacher)
        )
        found["qk"] = oracles.relation((sq, sk), (tq, tk), mask, heads) / tokens
        found["vv"] = oracles.relation((sv, sv), (tv, tv), mask, heads) / tokens
    if "hidden-states" in names:
        found["hidden"] = sum((student["hidden", i] - teacher["hidden", i]).square().mean() for i in kept)
    if "embedding-table" in names:
        found["embedding"] = (student["table"] - teacher["table"]).square().mean()
    if "attention-outputs" in names:
        pairs = [(student["attention_output", i], teacher["attention_output", i]) for i in kept]
        found["attention"] = sum((a - b).square().mean() for a, b in pairs)
    if "attention-scores" in names:
        total = 0.0
        for i in kept:
            own, other = ((shown["queries", i], shown["keys", i]) for shown in (student, teacher))
            value, entries = oracles.attention(own, other, mask)
            total = total + value / entries
        found["attention"] = total
    return found


def oracle(
    base: dict[str, Tensor], batch: tuple[Tensor, Tensor], layers: int, kept: list[int], losses: list[str]
) -> Step:
    """A step on tokens and labels [batch, seq] that learns from the teacher; without losses one that does not."""
    teacher = Plain(base, 4, trains=False)
    gone = tuple(f"decoder.layers.{i}." for i in range(layers) if i not in kept)
    student = Plain({n: w for n, w in base.items() if not n.startswith(gone)}, 4, trains=True)
    tokens, labels = batch
    shown, other = student.show(tokens, kept), teacher.show(tokens, list(range(layers)))
    table = "embedding.word_embeddings.weight"
    shown["table"], other["table"] = student.weights[table], teacher.weights[table]
    lm = oracles.lm(shown["logits"].flatten(0, 1), labels.t().flatten()).mean()
    found = components(shown, other, kept, losses)
    weights = {"logits": 2.0} if "vanilla:weight=2" in losses else {}
    weights |= {"hidden": 0.5} if "hidden-states:weight=0.5" in losses else {}
    size = lm.item()
    scale = {n: min(max(size / len(found) / x.item(), 1e-4), 1e4) if x > 0 else 1e4 for n, x in found.items()}
    objective = lm + sum(weights.get(n, 1.0) * scale[n] * x for n, x in found.items())
    names, leaves = zip(*student.weights.items(), strict=True)
    gradients = torch.autograd.grad(objective, leaves)
    return Step({"lm": lm, **found}, dict(zip(names, gradients, strict=True)))


def oracle_run(
    base: dict[str, Tensor], batches: list[tuple[Tensor, Tensor]], removal: Removal, losses: list[str]
) -> list[Step]:
    """Every step of a run whose weights do not change before the last one; frozen layers have no gradient."""
    run = []
    for number, batch in enumerate(batches):
        step = oracle(base, batch, removal.of, removal.kept(number), losses if number >= removal.seed else [])
        frozen = tuple(f"decoder.layers.{i}." for i in set(removal.layers) & set(removal.kept(number)))
        run.append(Step(step.means, {n: g for n, g in step.gradients.items() if not n.startswith(frozen)}))
    return run


def whole_tensors(run: Path) -> dict[str, Tensor]:
    """Every tensor of a run's newest checkpoint."""
    import warnings

    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    folder = run / "checkpoints" / (run / "latest").read_text().strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _load_state_dict_from_keys(checkpoint_id=str(folder))
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def first_batches(flags: list[str], count: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Tokens and labels of a run's first global batches, each [batch, seq]."""
    from megatron_distill.config.flags import parse
    from megatron_distill.config.run import RunConfig
    from megatron_distill.data.blend import open_blend
    from megatron_distill.data.loader import BatchLoader
    from megatron_distill.data.samples import training_samples

    config = parse(RunConfig, [*flags, "--save", "nowhere"])
    assert config.data.data_path is not None
    blend = open_blend("--data-path", config.data.data_path)
    seed, samples = config.training.seed, BATCH * count
    stream = training_samples(config.data, blend, num_samples=samples, vocab_size=VOCAB, seed=seed)
    loader = BatchLoader(stream)
    found = [loader.batch(range(begin, begin + BATCH)) for begin in range(0, samples, BATCH)]
    return [(batch.tokens.clone(), batch.labels.clone()) for batch in found]


@dataclass(frozen=True)
class Agreement:
    """How far a layout is from the oracle for a method: the largest relative errors."""

    loss: float
    gradient: float


def check(case: Case, base: Path, corpus: Path, folder: Path, methods: dict[str, list[str]]) -> dict[str, Agreement]:
    """Run a case and compare."""
    common = [*distil_flags(base, corpus), *case.arguments()]
    launch(steps, case.ranks, 240.0, folder, {"common": common, "methods": methods})
    batches = first_batches(distil_flags(base, corpus), case.removal.steps)
    weights = {n: w for n, w in whole_tensors(base).items() if not n.startswith("optimizer.")}
    found = {}
    for number, (method, losses) in enumerate(methods.items()):
        found[method] = compare(folder / f"method{number}", oracle_run(weights, batches, case.removal, losses))
    return found


def compare(run: Path, wanted: list[Step]) -> Agreement:
    """A run with the oracle: losses of every step, and the momentum that all of them leave."""
    logged = [row for row in map(json.loads, (run / "metrics.jsonl").open()) if row["kind"] == "train"]
    assert len(logged) == len(wanted)
    loss = 0.0
    for row, step in zip(logged, wanted, strict=True):
        for name, mean in step.means.items():
            got = row["loss"] if name == "lm" else row[f"kd/{name}"]
            loss = max(loss, abs(got - mean.item()) / max(abs(mean.item()), 1e-6))
    state = whole_tensors(run)
    worst = 0.0
    for name in wanted[-1].gradients:
        momentum = torch.zeros_like(wanted[-1].gradients[name])
        for step in wanted:
            momentum = BETA2 * momentum + (1 - BETA2) * step.gradients[name]
        got = state[f"optimizer.exp_avg.{name}"].double()
        worst = max(worst, float((got - momentum).norm() / momentum.norm()))
    return Agreement(loss, worst)


def main() -> None:
    """The table, in Markdown."""
    from tests.support.corpora import write_corpus

    print(HEAD)
    print("| layout | " + " | ".join(METHODS) + " |\n|---|" + "---|" * len(METHODS))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        corpus = write_corpus(root / "corpus")
        bases = {
            of: base_run(root / str(of), corpus, ["--num-layers", str(of)])
            for of in sorted({c.removal.of for c in CASES})
        }
        for number, case in enumerate(CASES):
            where = root / f"case{number}"
            where.mkdir()
            found = check(case, bases[case.removal.of], corpus, where, METHODS)
            cells = [f"{a.loss:.0e}, {a.gradient:.0e}" for a in found.values()]
            print(f"| {case.name} | " + " | ".join(cells) + " |", flush=True)


HEAD = """# Parity

One step of distillation on every layout, against plain PyTorch in float64 on whole tensors: the largest relative error
of any component of the loss, and of the gradient of any weight (norm of the difference over the norm). The ranks
compute in fp32, whose own rounding is about 1e-7 an operation. Layers 1 and 4 of six have
left the student where a row does not say more. Layers that are frozen until they leave go one by one, a step apart: the
first step has no teacher, and what is compared is the losses of all steps and the momentum that they leave.

    python -m tests.teachers.parity > docs/parity.md
"""


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
