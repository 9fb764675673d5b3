"""MiniLM's relations against the plain computation."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.losses import causal_pairs
from megatron_distill.losses.relations import relation_loss
from tests.losses import oracles
from tests.losses.groups import join
from tests.losses.largest import Largest
from tests.support.ranks import ranks

SEQ, BATCH, HEADS, DIM = 11, 3, 4, 6


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(teacher_heads: int = HEADS, teacher_dim: int = DIM) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Queries, keys and values of student and teacher, and a mask."""
    student = [normal(i, SEQ, BATCH, HEADS, DIM) for i in range(3)]
    teacher = [normal(9 + i, SEQ, BATCH, teacher_heads, teacher_dim) for i in range(3)]
    return student, teacher, (normal(20, SEQ, BATCH) > -0.5).double()


def gradients(student: list[Tensor], relation: str, make) -> tuple[Tensor, list[Tensor]]:  # type: ignore[no-untyped-def]
    """The sum and its gradients by queries and keys, or by values."""
    leaves = [x.clone().requires_grad_() for x in student]
    used = leaves[:2] if relation == "qk" else [leaves[2], leaves[2]]
    total = make(tuple(used))
    return total.detach(), list(torch.autograd.grad(total, leaves[:2] if relation == "qk" else leaves[2:]))


def pick(x: list[Tensor], relation: str) -> tuple[Tensor, Tensor]:
    return (x[0], x[1]) if relation == "qk" else (x[2], x[2])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are several, of unequal sizes."""
    monkeypatch.setattr(causal_pairs, "QUERY_BLOCK", 4)
    monkeypatch.setattr(causal_pairs, "BLOCK_BYTES", 4 * 4 * SEQ * 3)


@pytest.mark.parametrize("relation", ["qk", "vv"])
@pytest.mark.parametrize("relation_heads", [1, 2, 4, 8, 12])
def test_value_and_gradients_for_any_number_of_relation_heads(relation: str, relation_heads: int) -> None:
    student, teacher, mask = problem()
    other = pick(teacher, relation)
    expected = gradients(student, relation, lambda x: oracles.relation(x, other, mask, relation_heads))
    options = {"relation_heads": relation_heads, "group": None}
    found = gradients(student, relation, lambda x: relation_loss(x, other, mask, **options))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_teacher_of_another_width() -> None:
    student, teacher, mask = problem(teacher_heads=8, teacher_dim=5)
    expected = gradients(student, "qk", lambda x: oracles.relation(x, pick(teacher, "qk"), mask, 4))
    found = gradients(
        student, "qk", lambda x: relation_loss(x, pick(teacher, "qk"), mask, relation_heads=4, group=None)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@ranks(2)
def test_two_ranks_equal_one(rank: int) -> None:
    group = join(rank, 2)
    causal_pairs.QUERY_BLOCK = 4
    student, teacher, mask = problem()
    cut = [[x.chunk(2, dim=2)[rank] for x in tensors] for tensors in (student, teacher)]
    for relation in ("qk", "vv"):
        for heads in (2, 4, 8):
            value, whole = gradients(
                student, relation, lambda x, r=relation, h=heads: oracles.relation(x, pick(teacher, r), mask, h)
            )
            found = gradients(
                cut[0],
                relation,
                lambda x, r=relation, h=heads: relation_loss(x, pick(cut[1], r), mask, relation_heads=h, group=group),
            )
            expected = value, [g.chunk(2, dim=2)[rank] for g in whole]
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_distilled_from_itself_has_exactly_no_loss(dtype: torch.dtype) -> None:
    student, _, mask = problem()
    student = [x.to(dtype) for x in student]
    for relation in ("qk", "vv"):
        other = pick(student, relation)
        value, found = gradients(
            student, relation, lambda x, o=other: relation_loss(x, o, mask, relation_heads=4, group=None)
        )
        assert value == 0 and all(g.abs().max() == 0 for g in found)


def test_bf16_is_near_float64() -> None:
    student, teacher, mask = ([x.bfloat16() for x in tensors] for tensors in (*problem()[:2], [problem()[2]]))
    other = pick(teacher, "qk")
    found = gradients(student, "qk", lambda x: relation_loss(x, other, mask[0].float(), relation_heads=4, group=None))
    wide = [x.double() for x in student], tuple(x.double() for x in other), mask[0].double()
    expected = gradients(wide[0], "qk", lambda x: oracles.relation(x, wide[1], wide[2], 4))
    assert found[0].dtype == torch.float32 and found[1][0].dtype == torch.bfloat16
    for mine, theirs in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        assert (mine.double() - theirs).norm() / theirs.norm() < 0.03


def test_the_future_has_no_part() -> None:
    student, teacher, mask = problem()
    mask[:] = 0
    mask[4] = 1
    changed = [x.clone() for x in student]
    for x in changed:
        x[5:] += 3
    options = {"relation_heads": 4, "group": None}
    before, after = (relation_loss(pick(x, "qk"), pick(teacher, "qk"), mask, **options) for x in (student, changed))
    assert before == after


def test_scores_of_all_heads_and_queries_are_never_made() -> None:
    seq, heads = 64, 8
    student, teacher = ([normal(i + s, seq, 1, heads, DIM).float() for i in range(3)] for s in (0, 9))
    mask = torch.ones(seq, 1)
    with Largest() as largest:
        gradients(student, "qk", lambda x: relation_loss(x, pick(teacher, "qk"), mask, relation_heads=8, group=None))
    assert 0 < largest.nbytes <= student[0].nbytes < seq * seq * heads * 4 / 8


@pytest.mark.parametrize("heads", [5, 7])
def test_heads_that_do_not_divide_the_width(heads: int) -> None:
    student, teacher, mask = problem()
    with pytest.raises(ConfigError, match=f"{heads} relation heads do not fit the student: .* width 24"):
        relation_loss(pick(student, "qk"), pick(teacher, "qk"), mask, relation_heads=heads, group=None)
