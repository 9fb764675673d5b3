"""What hooks show of a decoder, and what they change."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from megatron_distill.tap import Tap
from tests.support.ranks import ranks
from tests.support.worlds import student

KINDS = ("queries", "keys", "values", "attention_output", "hidden")


def check(corpus: Path, tmp_path: Path, *flags: object, tp: int = 1) -> None:
    with student(tmp_path / "run", corpus, "--num-layers", 3, "--global-batch-size", 8, *flags) as built:
        from megatron_distill.models.capture import Capture

        model = built.model
        tokens = torch.arange(64).view(2, 32) % 60
        positions = torch.arange(32).expand(2, 32)
        plain = model(tokens, positions, None)
        shown: dict[int, tuple[dict[Tap, Tensor], Tensor]] = {}

        def keep(layer: int, found: dict[Tap, Tensor], hidden: Tensor) -> Tensor:
            shown[layer] = dict(found), hidden
            return hidden

        taps = [Tap(kind, 1) for kind in KINDS] + [Tap("hidden", 2), Tap("values", 2), Tap("logits")]
        capture = Capture(model, taps, keep)
        assert torch.equal(model(tokens, positions, None), plain)
        assert list(shown) == [1, 2]  # nothing is tapped of layer 0
        found, hidden = shown[1]
        assert set(found) == {Tap(kind, 1) for kind in KINDS} and found[Tap("hidden", 1)] is hidden
        assert set(shown[2][0]) == {Tap("hidden", 2), Tap("values", 2)}
        for kind in KINDS[:4]:
            assert found[Tap(kind, 1)].shape == (32, 2, 4 // tp, 16)
        assert hidden.shape == ((32 // tp if "--sequence-parallel" in flags else 32), 2, 64)
        q, k, v, out = (found[Tap(kind, 1)].permute(1, 2, 0, 3) for kind in KINDS[:4])
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(out, expected)  # so they are what attention is made of, after norms and rotation
        hidden.sum().backward()  # with gradients: losses are made of them
        capture.close()
        shown.clear()
        model(tokens, positions, None)
        assert not shown

        change = Capture(model, [Tap("hidden", 1)], lambda layer, found, hidden: 0 * hidden)
        without = model(tokens, positions, None)
        change.close()
        assert not torch.equal(without, plain)
        assert torch.equal(model(tokens, positions, None), plain)


@ranks(1)
def test_what_is_tapped_is_shown(rank: int, tmp_path: Path, corpus: Path) -> None:
    check(corpus, tmp_path)


@ranks(2)
def test_a_rank_shows_its_heads_and_its_part_of_the_sequence(rank: int, tmp_path: Path, corpus: Path) -> None:
    check(corpus, tmp_path, "--tensor-model-parallel-size", 2, "--sequence-parallel", tp=2)
