"""Messages: what goes in comes out, and what is damaged or of another micro-batch is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from megatron_distill.parallel.bridge import BridgeError
from megatron_distill.tap import Tap
from megatron_distill.teachers.routes import Form, Slice, plan_messages
from megatron_distill.teachers.wire import Stamp, message_bytes, pack, token_checksum, unpack
from tests.teachers.test_routes import FORMS, MICRO, SEQ, TAPS

PEER = "teacher rank 1 (rank 5 of the job)"
TOKENS = torch.arange(MICRO * SEQ).view(MICRO, SEQ) % 70
STAMP = Stamp(number=9, first_sample=36, num_samples=2, tokens=TOKENS)


def whole(seed: int = 0) -> dict[Tap, Tensor]:
    """All tapped tensors of a micro-batch."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for tap in TAPS:
        form = FORMS.of(tap)
        values = torch.randn(form.size, generator=generator)
        found[tap] = values.to(form.dtype) if form.dtype.is_floating_point else (values * 1000).to(form.dtype)
    return found


def split(tensors: dict[Tap, Tensor], rank: int, size: int) -> dict[Tap, Tensor]:
    """A rank's parts."""
    return {tap: x.chunk(size, dim=FORMS.of(tap).dim)[rank] for tap, x in tensors.items()}


@pytest.mark.parametrize("holds_all", [False, True])
@pytest.mark.parametrize(("teacher", "student"), [(1, 1), (2, 1), (1, 3), (3, 2), (2, 8)])
def test_what_goes_in_comes_out(teacher: int, student: int, holds_all: bool) -> None:
    """Of every kind of tensor, the top-k forms too; a sender may hold its part or all of a tensor."""
    tensors = whole()
    messages = plan_messages([[(tap, 0) for tap in TAPS]], FORMS, teacher, student)
    for (source, target), slices in messages.items():
        held = tensors if holds_all else split(tensors, source.tensor, teacher)
        message = pack(slices, held, source.tensor, teacher, STAMP)
        assert message.dtype == torch.uint8 and len(message) == message_bytes(slices)
        for tap, (part, tensor) in unpack(message, slices, STAMP, PEER).items():
            assert tensor.dtype == part.form.dtype
            expected = tensors[tap].narrow(part.form.dim, part.start, part.stop - part.start)
            assert torch.equal(tensor, expected), (tap, target)


@given(widths=st.lists(st.integers(1, 40), min_size=1, max_size=5), bf16=st.booleans())
@settings(deadline=None)
def test_parts_of_any_size_are_aligned(widths: list[int], bf16: bool) -> None:
    dtype = torch.bfloat16 if bf16 else torch.float32
    tensors = {Tap("hidden", i): torch.randn(3, width).to(dtype) for i, width in enumerate(widths)}
    slices = [Slice(tap, Form(tuple(x.shape), 0, dtype, is_gathered=False), 0, 3) for tap, x in tensors.items()]
    message = pack(slices, tensors, 0, 1, STAMP)
    assert len(message) % 64 == 0
    for tap, (_, tensor) in unpack(message, slices, STAMP, PEER).items():
        assert torch.equal(tensor, tensors[tap])
        assert (tensor.data_ptr() - message.data_ptr()) % 64 == 0


def message() -> tuple[Tensor, list[Slice]]:
    """Final hidden states."""
    form = FORMS.of(Tap("final_hidden"))
    slices = [Slice(Tap("final_hidden"), form, 0, SEQ)]
    return pack(slices, whole(), 0, 1, STAMP), slices


@given(where=st.integers(0, SEQ * MICRO * 96 * 4 - 1), bit=st.integers(0, 7))
@settings(deadline=None)
def test_a_flipped_bit_is_found(where: int, bit: int) -> None:
    damaged, slices = message()
    damaged[64 + where] ^= 1 << bit
    with pytest.raises(BridgeError) as caught:
        unpack(damaged, slices, STAMP, PEER)
    assert str(caught.value) == f"a message of {PEER} about samples 36 to 37 was damaged on its way"


@pytest.mark.parametrize(
    "other", [Stamp(8, 36, 2, TOKENS), Stamp(9, 34, 2, TOKENS), Stamp(9, 36, 3, TOKENS), Stamp(-1, 0, 0, None)]
)
def test_another_micro_batch_is_refused(other: Stamp) -> None:
    sent, slices = message()
    with pytest.raises(BridgeError) as caught:
        unpack(sent, slices, other, PEER)
    said = str(caught.value)
    assert said.startswith(f"{PEER} sent samples 36 to 37 (micro-batch 9) where samples {other.first_sample} to ")
    assert said.endswith("were expected; the roles have lost step") and "\n" not in said


def swapped() -> Tensor:
    other = TOKENS.clone()
    other[1, 3], other[1, 4] = TOKENS[1, 4], TOKENS[1, 3]
    return other


@pytest.mark.parametrize("tokens", [TOKENS + 1, TOKENS.flip(0), swapped()], ids=["others", "another order", "swapped"])
def test_other_tokens_are_refused(tokens: Tensor) -> None:
    sent, slices = message()
    with pytest.raises(BridgeError) as caught:
        unpack(sent, slices, Stamp(9, 36, 2, tokens), PEER)
    assert str(caught.value) == (
        f"{PEER} read other tokens than the student in samples 36 to 37; see that both find the same files under "
        "--data-path"
    )
    assert unpack(sent, slices, Stamp(9, 36, 2, None), PEER)  # who has not read them cannot tell


@given(tokens=st.lists(st.integers(0, 2**31), min_size=2, max_size=9), data=st.data())
def test_the_checksum_of_tokens_knows_their_places(tokens: list[int], data: st.DataObject) -> None:
    i, j = (data.draw(st.integers(0, len(tokens) - 1)) for _ in range(2))
    other = list(tokens)
    other[i], other[j] = tokens[j], tokens[i]
    sums = [int(token_checksum(torch.tensor(x))) for x in (tokens, other)]
    assert (sums[0] == sums[1]) == (tokens == other)
