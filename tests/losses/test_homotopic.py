"""Hidden states, attention scores and embedding tables against the plain computation, on one rank and on two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.losses import causal_pairs, squared_error
from megatron_distill.losses.attention_outputs import attention_output_loss
from megatron_distill.losses.attention_scores import attention_score_loss
from megatron_distill.losses.embedding_table import embedding_table_loss
from megatron_distill.losses.hidden_states import hidden_state_loss
from tests.losses import oracles
from tests.losses.groups import join
from tests.support.ranks import ranks

SEQ, BATCH, HEADS, DIM, WIDTH, VOCAB = 10, 3, 4, 5, 7, 12


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are several, of unequal sizes."""
    monkeypatch.setattr(causal_pairs, "QUERY_BLOCK", 4)
    monkeypatch.setattr(causal_pairs, "BLOCK_BYTES", 4 * 4 * SEQ * 3)
    monkeypatch.setattr(squared_error, "ROWS", 8)


MASK = (normal(20, SEQ, BATCH) > -0.5).double()
QK = tuple(normal(i, SEQ, BATCH, HEADS, DIM) for i in (1, 2))
TEACHER_QK = tuple(normal(i, SEQ, BATCH, HEADS, DIM) for i in (3, 4))
HIDDEN, TEACHER_HIDDEN = normal(5, SEQ, BATCH, WIDTH), normal(6, SEQ, BATCH, WIDTH)
TABLE, TEACHER_TABLE = normal(7, VOCAB, WIDTH), normal(8, VOCAB, WIDTH)


Found = tuple[Tensor, list[Tensor]]


def differentiate(make: Callable[..., Tensor], *leaves: Tensor) -> Found:
    """Value and gradients."""
    own = [x.clone().requires_grad_() for x in leaves]
    total = make(*own)
    return total.detach(), list(torch.autograd.grad(total, own))


def expected_attention() -> Found:
    def plain(*x: Tensor) -> Tensor:
        return oracles.attention(x, TEACHER_QK, MASK)[0] / (HEADS * (SEQ + 1) / 2)  # type: ignore[arg-type]

    return differentiate(plain, *QK)


def expected_outputs() -> Found:
    return differentiate(lambda x: ((x - TEACHER_QK[0]).square().mean((2, 3)) * MASK).sum(), QK[0])


def expected_hidden() -> Found:
    return differentiate(lambda x: ((x - TEACHER_HIDDEN).square().mean(-1) * MASK).sum(), HIDDEN)


def expected_table() -> Found:
    return differentiate(lambda x: (x - TEACHER_TABLE).square().mean(), TABLE)


def check(found: Found, expected: Found) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_attention_scores() -> None:
    found = differentiate(lambda q, k: attention_score_loss((q, k), TEACHER_QK, MASK, group=None), *QK)
    check(found, expected_attention())


def test_attention_outputs() -> None:
    found = differentiate(lambda x: attention_output_loss(x, TEACHER_QK[0], MASK, group=None), QK[0])
    check(found, expected_outputs())


def test_hidden_states() -> None:
    options = {"group": None, "sequence_parallel": False}
    check(differentiate(lambda x: hidden_state_loss(x, TEACHER_HIDDEN, MASK, **options), HIDDEN), expected_hidden())


def test_embedding_table() -> None:
    check(differentiate(lambda x: embedding_table_loss(x, TEACHER_TABLE, group=None), TABLE), expected_table())


def test_rows_of_padding_are_no_part_of_the_mean() -> None:
    """The first rows are the vocabulary; what lies in the others counts neither as a difference nor as a row."""
    count = VOCAB - 3
    found = differentiate(lambda x: embedding_table_loss(x, TEACHER_TABLE, group=None, vocab_size=count), TABLE)
    check(found, differentiate(lambda x: (x - TEACHER_TABLE)[:count].square().mean(), TABLE))


def test_a_mean_over_causal_entries() -> None:
    total = attention_score_loss(QK, TEACHER_QK, torch.ones(SEQ, BATCH), group=None)
    difference = oracles.scores(*QK, HEADS) - oracles.scores(*TEACHER_QK, HEADS)
    mean = difference[:, :, oracles.causal(SEQ)].square().mean()
    assert (total / (SEQ * BATCH)).item() == pytest.approx(mean.item(), rel=1e-12)


@ranks(2)
def test_two_ranks_equal_one(rank: int) -> None:
    group = join(rank, 2)

    def own(x: Tensor, dim: int) -> Tensor:
        return x.chunk(2, dim=dim)[rank]

    def cut(expected: Found, dim: int) -> Found:
        return expected[0], [own(g, dim) for g in expected[1]]

    teacher = own(TEACHER_QK[0], 2), own(TEACHER_QK[1], 2)
    found = differentiate(
        lambda q, k: attention_score_loss((q, k), teacher, MASK, group=group), *(own(x, 2) for x in QK)
    )
    check(found, cut(expected_attention(), 2))
    found = differentiate(lambda x: attention_output_loss(x, teacher[0], MASK, group=group), own(QK[0], 2))
    check(found, cut(expected_outputs(), 2))
    found = differentiate(lambda x: embedding_table_loss(x, own(TEACHER_TABLE, 0), group=group), own(TABLE, 0))
    check(found, cut(expected_table(), 0))
    options = {"group": group, "sequence_parallel": True}
    found = differentiate(lambda x: hidden_state_loss(x, own(TEACHER_HIDDEN, 0), MASK, **options), own(HIDDEN, 0))
    check(found, cut(expected_hidden(), 0))
    options = {"group": group, "sequence_parallel": False}
    check(differentiate(lambda x: hidden_state_loss(x, TEACHER_HIDDEN, MASK, **options), HIDDEN), expected_hidden())
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_distilled_from_itself_has_exactly_no_loss(dtype: torch.dtype) -> None:
    q, k, hidden, table = (x.to(dtype) for x in (*QK, HIDDEN, TABLE))
    options = {"group": None, "sequence_parallel": False}
    for value, gradients in (
        differentiate(lambda *x: attention_score_loss(x, (q, k), MASK, group=None), q, k),  # type: ignore[arg-type]
        differentiate(lambda x: attention_output_loss(x, q, MASK, group=None), q),
        differentiate(lambda x: hidden_state_loss(x, hidden, MASK, **options), hidden),
        differentiate(lambda x: embedding_table_loss(x, table, group=None), table),
    ):
        assert value == 0 and all(g.abs().max() == 0 for g in gradients)


def test_bf16_gradients_are_near_those_of_float64() -> None:
    low, teacher = HIDDEN.bfloat16(), TEACHER_HIDDEN.bfloat16()
    options = {"group": None, "sequence_parallel": False}
    found = differentiate(lambda x: hidden_state_loss(x, teacher, MASK, **options), low)
    wide = differentiate(lambda x: hidden_state_loss(x, teacher.double(), MASK, **options), low.double())
    assert found[0].dtype == torch.float32 and found[1][0].dtype == torch.bfloat16
    torch.testing.assert_close(found[1][0].double(), wide[1][0], rtol=0.01, atol=1e-4)


def test_models_that_do_not_fit() -> None:
    options = {"group": None, "sequence_parallel": False}
    with pytest.raises(ConfigError, match="same width"):
        hidden_state_loss(HIDDEN, TEACHER_HIDDEN[..., :-1], MASK, **options)
    with pytest.raises(ConfigError, match="same vocabulary"):
        embedding_table_loss(TABLE, TEACHER_TABLE[:-1], group=None)
    with pytest.raises(ConfigError, match="attention of the same width"):
        attention_output_loss(QK[0], TEACHER_QK[0][:, :, :2], MASK, group=None)
    with pytest.raises(ConfigError, match="attention heads"):
        attention_score_loss(QK, (TEACHER_QK[0][:, :, :2], TEACHER_QK[1][:, :, :2]), MASK, group=None)
