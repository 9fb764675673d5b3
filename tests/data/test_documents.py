"""Documents inside samples: rules on any device, boundaries for attention, random offsets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.gpt_dataset import _get_ltor_masks_and_position_ids

from megatron_distill.config.error import ConfigError
from megatron_distill.data.documents import DocumentRules, apply_rules, attention_boundaries
from megatron_distill.data.indexed import IndexedCorpus, IndexedWriter
from megatron_distill.data.loader import BatchLoader
from megatron_distill.data.samples import stream_samples

EOD = 2
SEQ = 12
RULES = [DocumentRules(EOD, reset, mask) for reset in (False, True) for mask in (False, True)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> IndexedCorpus:
    prefix = tmp_path_factory.mktemp("documents") / "text"
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        writer.add_document(np.random.default_rng(0).integers(0, 6, 500))
    return IndexedCorpus(prefix)


def loader(corpus: IndexedCorpus, rules: DocumentRules | None = None, **options: bool) -> BatchLoader:
    samples = stream_samples(corpus, (0, 500), seq_length=SEQ, vocab_size=6, seed=1, **options)
    return BatchLoader(samples, rules)


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rules_on_a_device_are_those_of_the_assembly(corpus: IndexedCorpus, rules: DocumentRules) -> None:
    plain, wanted = loader(corpus).batch(range(30)), loader(corpus, rules).batch(range(30))
    got = apply_rules(plain, rules)
    for name, value in vars(wanted).items():
        assert getattr(got, name).equal(value), name
        assert getattr(got, name).dtype == value.dtype


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=4))
def test_boundaries_are_the_blocks_of_megatron_cores_attention_mask(rows: list[list[int]]) -> None:
    tokens = torch.tensor(rows)
    cu_seqlens = attention_boundaries(tokens, EOD)
    assert cu_seqlens.dtype == torch.int32
    documents = torch.bucketize(torch.arange(tokens.numel()), cu_seqlens[1:], right=True).view_as(tokens)
    for row, document in zip(tokens, documents, strict=True):
        hidden = _get_ltor_masks_and_position_ids(row, EOD, False, True, False, True)[0][0]
        causal = torch.ones(7, 7, dtype=torch.bool).tril()
        assert (~hidden).equal(causal & (document[:, None] == document[None, :]))


def test_samples_shift_by_less_than_their_length_and_never_leave_the_corpus(corpus: IndexedCorpus) -> None:
    stream = np.fromfile(f"{corpus.prefix}.bin", dtype=np.uint16).astype(np.int64)
    plain, shifted = loader(corpus), loader(corpus, random_offset=True)
    assert (plain.num_samples, shifted.num_samples) == (499 // SEQ, 500 // SEQ - 1)
    offsets = []
    epochs = range(4 * shifted.num_samples)
    batch = shifted.batch(epochs)
    numbers = shifted.samples.numbers(epochs)  # type: ignore[attr-defined]
    for row, number in enumerate(numbers):
        window = np.append(batch.tokens[row], batch.labels[row, -1])
        found = [o for o in range(SEQ) if np.array_equal(stream[number * SEQ + o :][: SEQ + 1], window)]
        assert found, "the sample is no shifted window"
        offsets += found
    assert set(offsets) == set(range(SEQ))
    assert sorted(numbers.tolist()) == sorted(list(range(shifted.num_samples)) * 4)


def test_a_shift_belongs_to_its_position(corpus: IndexedCorpus) -> None:
    one, other = loader(corpus, random_offset=True), loader(corpus, random_offset=True)
    late = one.batch(range(100, 120))
    other.batch(range(77))
    assert late.tokens.equal(other.batch(range(100, 120)).tokens)
    first, again = one.batch(range(one.num_samples)), one.batch(range(one.num_samples, 2 * one.num_samples))
    assert not first.tokens.equal(again.tokens)


# Part of the format, as the orders are.
def test_the_shifts_stay_the_ones_old_runs_used(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "text", np.dtype(np.uint16)) as writer:
        writer.add_document(np.arange(40))
    samples = stream_samples(
        IndexedCorpus(tmp_path / "text"), (0, 40), seq_length=8, vocab_size=40, seed=1234, random_offset=True
    )
    assert BatchLoader(samples).batch(range(8)).tokens[:, 0].tolist() == [27, 2, 12, 23, 3, 20, 31, 11]


@pytest.mark.parametrize("tokens", [0, 11, 23])
def test_a_span_too_short_for_a_shifted_sample_is_said(corpus: IndexedCorpus, tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"gives {tokens} tokens here, fewer than the 12 x 2 of one sample"):
        stream_samples(corpus, (0, tokens), seq_length=SEQ, vocab_size=6, seed=1, random_offset=True)


def test_the_shortest_span_has_one_shifted_sample(corpus: IndexedCorpus) -> None:
    samples = stream_samples(corpus, (476, 24), seq_length=SEQ, vocab_size=6, seed=1, random_offset=True)
    assert samples.num_samples == 1
    BatchLoader(samples).batch(range(100))


def test_outputs_of_another_shape_or_dtype_are_refused(corpus: IndexedCorpus) -> None:
    samples = loader(corpus).samples
    with pytest.raises(ValueError, match=r"an output must be \[2, 13\]"):
        samples.pack([0, 1], np.empty((2, 12), np.uint16))
    with pytest.raises(TypeError):
        samples.pack([0, 1], np.empty((2, 13), np.int64))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        samples.pack([0, 1], np.empty((2, 26), np.uint16)[:, ::2])
    frozen = np.empty((2, 13), np.uint16)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        samples.pack([0, 1], frozen)
