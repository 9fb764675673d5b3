"""The fused losses against the plain computation: values, both gradients, layouts, masks, chunks and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.losses.distill_logits import LogitLosses, distill_logits
from megatron_distill.losses.divergences import DIVERGENCES, divergence
from megatron_distill.losses.teacher_signal import HiddenTeacher, LogitTeacher, TopKTeacher, largest
from tests.losses import oracles
from tests.losses.groups import join
from tests.losses.largest import Largest
from tests.support.ranks import ranks

TOKENS, VOCAB, WIDTH, TEACHER_WIDTH, K = 13, 24, 6, 9, 5


class Problem:
    """Whole tensors of a problem, in float64."""

    def __init__(self, seed: int = 0, *, tokens: int = TOKENS, vocab: int = VOCAB) -> None:
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64)

        self.hidden, self.weight = normal(tokens, WIDTH), normal(vocab, WIDTH)
        self.teacher_hidden, self.teacher_weight = normal(tokens, TEACHER_WIDTH), normal(vocab, TEACHER_WIDTH)
        self.labels = torch.randint(vocab, (tokens,), generator=g)
        self.mask = (torch.rand(tokens, generator=g) > 0.3).double()
        self.labels[self.mask == 0] = -100

    @property
    def teacher_logits(self) -> Tensor:
        return self.teacher_hidden @ self.teacher_weight.t()

    def teacher(self, kind: str, rank: int = 0, size: int = 1, temperature: float = 1.0) -> Any:
        part = slice(rank * len(self.weight) // size, (rank + 1) * len(self.weight) // size)
        if kind == "hidden":
            return HiddenTeacher(self.teacher_hidden, self.teacher_weight[part])
        if kind == "logits":
            return LogitTeacher(self.teacher_logits[:, part])
        log_p = (self.teacher_logits / temperature).log_softmax(-1)
        log_probs, indices = log_p.topk(K)
        return TopKTeacher(log_probs, indices, log_p.scatter(1, indices, -torch.inf).logsumexp(1))

    def plain(self, name: str, coefficients: tuple[float, float], kind: str, temperature: float) -> dict[str, Tensor]:
        """Sums and gradients by autograd of the definition."""
        hidden, weight = (x.clone().requires_grad_() for x in (self.hidden, self.weight))
        logits = hidden @ weight.t()
        p, q = ((z / temperature).log_softmax(-1) for z in (self.teacher_logits, logits))
        if kind == "topk":
            indices = p.topk(K).indices
            is_tail = torch.ones_like(p).scatter(1, indices, 0).bool()
            p, q = (
                torch.cat((x.gather(1, indices), x.masked_fill(~is_tail, -1e9).logsumexp(1, True)), 1) for x in (p, q)
            )
        kd = (oracles.divergence(name, p, q) * self.mask).sum() * temperature**2
        lm = (oracles.lm(logits, self.labels.clamp_min(0)) * self.mask).sum()
        gradients = torch.autograd.grad(coefficients[0] * lm + coefficients[1] * kd, (hidden, weight))
        return {"lm": lm.detach(), "kd": kd.detach(), "hidden": gradients[0], "weight": gradients[1]}


def fused(
    problem: Problem, name: str, coefficients: tuple[float, float], teacher: Any, *, separable: bool, **options: Any
) -> tuple[LogitLosses, dict[str, Tensor]]:
    """Sums and gradients of the fused losses, of one rank's part."""
    group = options.get("group")
    size, rank = (1, 0) if group is None else (group.size(), group.rank())
    hidden = problem.hidden.clone().requires_grad_()
    weight = problem.weight.chunk(size)[rank].clone().requires_grad_()
    found = distill_logits(
        hidden,
        weight,
        teacher,
        problem.labels,
        problem.mask,
        which=divergence(name),
        weights=None if separable else coefficients,
        **({"group": None} | options),
    )
    if separable:
        assert found.objective is None
        (coefficients[0] * found.lm_sum + coefficients[1] * found.kd_sum).backward()
    else:
        assert found.objective is not None and not found.lm_sum.requires_grad
        found.objective.backward()
    assert hidden.grad is not None and weight.grad is not None
    return found, {"lm": found.lm_sum, "kd": found.kd_sum, "hidden": hidden.grad, "weight": weight.grad}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9) -> None:
    for name, wanted in expected.items():
        torch.testing.assert_close(
            found[name].detach(), wanted, rtol=rtol, atol=rtol, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["hidden", "logits", "topk"])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_equals_autograd_of_the_definition(name: str, kind: str, temperature: float) -> None:
    problem = Problem()
    expected = problem.plain(name, (0.7, 1.9), kind, temperature)
    for separable in (False, True):
        teacher = problem.teacher(kind, temperature=temperature)
        options = {"temperature": temperature, "chunk_tokens": 4}
        found, values = fused(problem, name, (0.7, 1.9), teacher, separable=separable, **options)
        assert_same(values, expected)
        assert found.num_tokens == problem.mask.sum()


@ranks(2)
def test_two_ranks_equal_one(rank: int) -> None:
    problem, group = Problem(1), join(rank, 2)
    for name in DIVERGENCES:
        for kind in ("hidden", "logits", "topk"):
            for temperature in (1.0, 2.0):
                expected = problem.plain(name, (0.7, 1.9), kind, temperature)
                expected["weight"] = expected["weight"].chunk(2)[rank]
                for separable in (False, True):
                    teacher = problem.teacher(kind, rank, 2, temperature)
                    options: dict[str, Any] = {"group": group, "temperature": temperature, "chunk_tokens": 5}
                    _, values = fused(problem, name, (0.7, 1.9), teacher, separable=separable, **options)
                    assert_same(values, expected)
    dist.destroy_process_group()


@ranks(2)
def test_the_gradient_of_hidden_states_can_be_left_in_parts(rank: int) -> None:
    problem, group = Problem(2), join(rank, 2)
    options: dict[str, Any] = {"group": group, "reduce_hidden_gradient": False}
    _, values = fused(problem, "jsd", (1.0, 1.0), problem.teacher("hidden", rank, 2), separable=False, **options)
    expected = problem.plain("jsd", (1.0, 1.0), "hidden", 1.0)["hidden"]
    assert (values["hidden"] - expected).abs().max() > 1e-3
    dist.all_reduce(values["hidden"])
    torch.testing.assert_close(values["hidden"], expected, rtol=1e-9, atol=1e-9)
    dist.destroy_process_group()


REAL = 17  # of 24 rows: 7 are padding


def check_padding(rank: int, size: int, kind: str, separable: bool, group: dist.ProcessGroup | None) -> None:
    """Padded matrices give what narrower ones give, and padding gets no gradient."""
    problem, narrow = Problem(12), Problem(12)
    problem.weight[REAL:], problem.teacher_weight[REAL:] = 50.0, -40.0  # whatever stands there
    narrow.weight, narrow.teacher_weight = narrow.weight[:REAL], narrow.teacher_weight[:REAL]
    for each in (problem, narrow):
        each.labels = each.labels.clamp(-100, REAL - 1)
    teacher = narrow.teacher(kind) if kind == "topk" else problem.teacher(kind, rank, size)
    _, values = fused(
        problem, "jsd", (1.0, 2.0), teacher, separable=separable, vocab_size=REAL, group=group, chunk_tokens=4
    )
    expected = narrow.plain("jsd", (1.0, 2.0), kind, 1.0)
    own = torch.cat((expected["weight"], torch.zeros(VOCAB - REAL, WIDTH))).chunk(size)[rank]
    assert_same(values, expected | {"weight": own})


@pytest.mark.parametrize("kind", ["hidden", "logits", "topk"])
@pytest.mark.parametrize("separable", [False, True])
def test_rows_that_pad_the_vocabulary_do_not_count(kind: str, separable: bool) -> None:
    check_padding(0, 1, kind, separable, None)


@ranks(4)
def test_padding_may_fill_some_ranks_and_part_of_another(rank: int) -> None:
    """Of 6 rows each, the third rank holds 5 tokens and the last none."""
    group = join(rank, 4)
    for kind in ("hidden", "logits", "topk"):
        check_padding(rank, 4, kind, False, group)
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["forward-kl", "jsd"])
def test_tokens_that_the_teacher_does_not_have_get_none_of_its_probability(name: str) -> None:
    """The student keeps its own outcomes; the teacher's rows beyond its own tokens hold anything."""
    problem, cut = Problem(13), Problem(13)
    problem.teacher_weight[REAL:] = 50.0
    teacher_logits = cut.teacher_hidden @ cut.teacher_weight.t()
    teacher_logits[:, REAL:] = -300  # whose logarithm the plain formula still can take
    hidden, weight = problem.hidden.clone().requires_grad_(), problem.weight.clone().requires_grad_()
    kd = (oracles.divergence(name, teacher_logits, hidden @ weight.t()) * problem.mask).sum()
    expected = torch.autograd.grad(kd, (hidden, weight))
    options = {"separable": False, "teacher_vocab_size": REAL, "chunk_tokens": 4}
    _, values = fused(problem, name, (0.0, 1.0), problem.teacher("hidden"), **options)
    assert_same(values, {"kd": kd.detach(), "hidden": expected[0], "weight": expected[1]})


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_largest_of_a_confident_teacher(name: str) -> None:
    """Tails from 1e-2 down to 1e-30 in fp32, from logits as a model makes them, against float64."""
    generator = torch.Generator().manual_seed(3)
    tokens, vocab, width, k = 40, 512, 8, 16
    teacher_logits = torch.randn(tokens, vocab, generator=generator)
    teacher_logits[:, :k] += torch.linspace(9, 75, tokens)[:, None]
    weight = torch.randn(vocab, width, generator=generator)
    weight[:k] += 1.0
    hidden = torch.rand(tokens, width, generator=generator) * torch.linspace(0.5, 3, tokens)[:, None]
    top = largest(teacher_logits, k, 1.0, None)
    log_p = teacher_logits.double().log_softmax(1)
    own, matrix = hidden.double().requires_grad_(), weight.double().requires_grad_()
    log_q = (own @ matrix.t()).log_softmax(1)
    rest = torch.ones(tokens, vocab).scatter(1, top.indices, 0).bool()
    outcomes = [
        torch.cat((x.gather(1, top.indices), x.masked_fill(~rest, -1e9).logsumexp(1, True)), 1) for x in (log_p, log_q)
    ]
    expected = oracles.divergence(name, *outcomes).sum()
    gradients = torch.autograd.grad(expected, (own, matrix))
    hidden.requires_grad_()
    weight.requires_grad_()
    zeros = torch.zeros(tokens, dtype=torch.long)
    options: dict[str, Any] = {"which": divergence(name), "group": None, "weights": (0.0, 1.0)}
    found = distill_logits(hidden, weight, top, zeros, torch.ones(tokens), **options)
    assert found.objective is not None
    found.objective.backward()
    assert abs(found.kd_sum.item() / expected.item() - 1) < 1e-5
    for got, wanted in zip((hidden.grad, weight.grad), gradients, strict=True):
        assert got is not None and (got - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize("chunk", [1, 3, 13, 100])
def test_the_size_of_a_chunk_does_not_matter(chunk: int) -> None:
    problem = Problem(3)
    expected = problem.plain("skew-kl", (1.0, 2.0), "hidden", 1.0)
    _, values = fused(problem, "skew-kl", (1.0, 2.0), problem.teacher("hidden"), separable=False, chunk_tokens=chunk)
    assert_same(values, expected)


def test_masked_tokens_have_no_part_and_no_gradient() -> None:
    problem = Problem(4)
    _, values = fused(problem, "reverse-kl", (1.0, 1.0), problem.teacher("hidden"), separable=False)
    assert values["hidden"][problem.mask == 0].abs().max() == 0
    other = Problem(4)
    other.hidden[other.mask == 0] *= 7
    _, again = fused(other, "reverse-kl", (1.0, 1.0), other.teacher("hidden"), separable=False)
    assert_same(again, {name: x.detach() for name, x in values.items()}, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_model_distilled_from_itself_has_exactly_no_divergence(name: str, dtype: torch.dtype) -> None:
    problem = Problem(5)
    hidden, weight = (x.to(dtype).requires_grad_() for x in (problem.hidden, problem.weight))
    teacher = HiddenTeacher(hidden.detach(), weight.detach())
    for temperature in (1.0, 3.0):
        found = distill_logits(
            hidden,
            weight,
            teacher,
            problem.labels,
            problem.mask,
            which=divergence(name),
            group=None,
            temperature=temperature,
        )
        assert found.kd_sum.item() == 0
        gradients = torch.autograd.grad(found.kd_sum, (hidden, weight))
        assert all(g.abs().max() == 0 for g in gradients)


@pytest.mark.parametrize("separable", [False, True])
def test_bf16_is_near_float64(separable: bool) -> None:
    problem = Problem(6)
    for x in ("hidden", "weight", "teacher_hidden", "teacher_weight"):
        setattr(problem, x, getattr(problem, x).bfloat16().double())
    expected = problem.plain("forward-kl", (1.0, 1.0), "hidden", 1.0)
    for x in ("hidden", "weight", "teacher_hidden", "teacher_weight"):
        setattr(problem, x, getattr(problem, x).bfloat16())
    _, values = fused(problem, "forward-kl", (1.0, 1.0), problem.teacher("hidden"), separable=separable)
    assert values["lm"].dtype == values["kd"].dtype == torch.float32
    assert values["hidden"].dtype == values["weight"].dtype == torch.bfloat16
    for name, wanted in expected.items():
        error = (values[name].double() - wanted).norm() / wanted.norm()
        assert error < 0.03, f"{name}: {error}"


def test_weights_can_be_tensors_and_zero_drops_a_term() -> None:
    problem = Problem(7)
    weights = (torch.tensor(0.0), torch.tensor(2.0))
    _, values = fused(problem, "tvd", weights, problem.teacher("logits"), separable=False)  # type: ignore[arg-type]
    assert_same(values, problem.plain("tvd", (0.0, 2.0), "logits", 1.0), rtol=1e-6)


def test_without_gradients_there_are_only_sums() -> None:
    problem = Problem(8)
    arguments = (problem.hidden, problem.weight, problem.teacher("hidden"), problem.labels, problem.mask)
    found = distill_logits(*arguments, which=divergence("jsd"), group=None, weights=(1.0, 3.0))
    expected = problem.plain("jsd", (1.0, 1.0), "hidden", 1.0)
    torch.testing.assert_close(found.objective, expected["lm"] + 3 * expected["kd"])


def test_a_second_backward_pass_says_that_it_has_nothing_left() -> None:
    problem = Problem(9)
    hidden = problem.hidden.requires_grad_()
    arguments = (hidden, problem.weight, problem.teacher("hidden"), problem.labels, problem.mask)
    found = distill_logits(*arguments, which=divergence("jsd"), group=None, weights=(1.0, 1.0))
    assert found.objective is not None
    found.objective.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="first backward pass"):
        found.objective.backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_gradient_of_the_matrix_can_be_added_to_a_buffer(dtype: torch.dtype) -> None:
    problem = Problem(11)
    hidden, weight = (x.to(dtype).requires_grad_() for x in (problem.hidden, problem.weight))
    arguments = (hidden, weight, problem.teacher("hidden"), problem.labels, problem.mask)
    options: dict[str, Any] = {"which": divergence("jsd"), "group": None, "chunk_tokens": 4}
    buffer = torch.ones_like(weight, dtype=torch.promote_types(dtype, torch.float32))
    found = distill_logits(*arguments, weights=(0.5, 2.0), weight_gradient=buffer, **options)
    assert found.objective is not None
    found.objective.backward()
    expected = problem.plain("jsd", (0.5, 2.0), "hidden", 1.0)
    tolerance = 1e-9 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(buffer.double() - 1, expected["weight"], rtol=tolerance, atol=tolerance)
    assert weight.grad is None and hidden.grad is not None
    torch.testing.assert_close(hidden.grad.double(), expected["hidden"], rtol=tolerance, atol=tolerance)
    again = distill_logits(*arguments, weights=(0.5, 2.0), weight_gradient=buffer, **options)
    assert again.objective is not None
    with pytest.raises(RuntimeError):
        (2 * again.objective).backward()
    with pytest.raises(ValueError, match="only with weights"):
        distill_logits(*arguments, weight_gradient=buffer, **options)


@pytest.mark.parametrize("kind", ["hidden", "topk"])
@pytest.mark.parametrize("separable", [False, True])
def test_nothing_of_tokens_times_vocabulary_is_ever_made(kind: str, separable: bool) -> None:
    tokens, vocab, chunk = 512, 768, 32
    problem = Problem(10, tokens=tokens, vocab=vocab)
    teacher = problem.teacher(kind)
    for x in ("hidden", "weight", "teacher_hidden", "teacher_weight"):
        setattr(problem, x, getattr(problem, x).float())
    if kind == "hidden":
        teacher = problem.teacher(kind)
    saved: list[int] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x.numel())
        return x

    with Largest() as made, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        fused(problem, "jsd", (1.0, 1.0), teacher, separable=separable, chunk_tokens=chunk)
    assert made.nbytes <= 2 * chunk * vocab * 4
    assert max(saved, default=0) <= tokens * WIDTH


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda teacher: replace(teacher, weight=teacher.weight[:-1]), "same batch, tokenizer and padded vocabulary"),
        (lambda teacher: replace(teacher, hidden=teacher.hidden[1:]), "same batch, tokenizer and padded vocabulary"),
    ],
)
def test_teachers_that_do_not_fit(change: Any, says: str) -> None:
    problem = Problem()
    with pytest.raises(ConfigError, match=says):
        fused(problem, "tvd", (1.0, 1.0), change(problem.teacher("hidden")), separable=False)
    with pytest.raises(ConfigError, match="temperature=0"):
        fused(problem, "tvd", (1.0, 1.0), problem.teacher("hidden"), separable=False, temperature=0)
