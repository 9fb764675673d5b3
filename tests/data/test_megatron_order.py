"""`--data-order megatron` against megatron-core's own datasets, index for index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import get_blend_from_list

from megatron_distill._csrc import SampleSource
from megatron_distill.config.error import ConfigError
from megatron_distill.config.sections import DataConfig
from megatron_distill.data.blend import open_blend
from megatron_distill.data.documents import DocumentRules
from megatron_distill.data.indexed import IndexedCorpus, IndexedWriter
from megatron_distill.data.loader import BatchLoader
from megatron_distill.data.samples import document_samples, part_spans, training_samples
from megatron_distill.data.split import split_ranges
from tests.data.test_indexed import write_theirs

VOCAB = 500
EOD = 3


def write(prefix: Path, documents: int, longest: int, seed: int) -> Path:
    """Documents of 0 to `longest` tokens, EOD among them."""
    generator = np.random.default_rng(seed)
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for length in generator.integers(0, longest + 1, documents):
            writer.add_document(generator.integers(0, 12, length) * (VOCAB // 12))
    return prefix


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("megatron")
    sequences = [[[1, 2, 3, 4], [5]], [[]], [[6, 7], [8, 9, 10], [11]], [[12] * 9], [[13, 14], []]] * 7
    return {
        "short": write(folder / "short", documents=90, longest=13, seed=1),
        "long": write(folder / "long", documents=11, longest=400, seed=2),
        "even": write(folder / "even", documents=64, longest=30, seed=3),
        "sequences": write_theirs(folder / "sequences", sequences, np.int32),
    }


def theirs(blend: Sequence[str], sizes: list[int | None], **options: Any) -> list[Any]:
    """megatron-core's training, validation and test sets."""
    config = GPTDatasetConfig(
        blend=get_blend_from_list(list(blend)),
        tokenizer=SimpleNamespace(eod=EOD, pad=-1, vocab_size=None, unique_identifiers={}),
        create_attention_mask=False,
        **{  # type: ignore[arg-type]
            "random_seed": 1234,
            "sequence_length": 16,
            "split": "969,30,1",
            "reset_position_ids": False,
            "reset_attention_mask": False,
            "eod_mask_loss": False,
            **options,
        },
    )
    return BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()


def assert_same(samples: SampleSource, dataset: Any, rules: DocumentRules | None = None) -> None:
    batch = BatchLoader(samples, rules).batch(range(samples.num_samples))
    assert samples.num_samples == len(dataset) > 0
    for row in range(samples.num_samples):
        wanted = dataset[row]
        for name in ("tokens", "labels", "loss_mask", "position_ids"):
            assert getattr(batch, name)[row].equal(wanted[name]), (row, name)


# "short" has about 570 tokens, so 35 samples of 16: one epoch, its very end, the last epoch shuffled apart (less than
# 80 % of it is needed) and with the others, and many.
@pytest.mark.parametrize("name", ["short", "long", "even", "sequences"])
@pytest.mark.parametrize("samples", [1, 30, 37, 50, 69, 70, 71, 100, 500])
def test_training_samples_are_those_of_gpt_dataset(corpora: dict[str, Path], name: str, samples: int) -> None:
    flags = DataConfig(data_path=(str(corpora[name]),), data_order="megatron", seq_length=16, split="90,10,0")
    assert flags.data_path is not None
    dataset = theirs(flags.data_path, [samples, None, None], split="90,10,0")[0]
    blend = open_blend("--data-path", flags.data_path)
    assert_same(training_samples(flags, blend, num_samples=samples, vocab_size=VOCAB, seed=1234), dataset)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("length", [2, 5, 64])
@pytest.mark.parametrize("split", ["50,30,20", "1,1,1"])
def test_every_part_seed_and_length(corpora: dict[str, Path], seed: int, length: int, split: str) -> None:
    corpus = IndexedCorpus(corpora["even"])
    sizes = [40, 9, None]
    datasets = theirs([corpus.prefix], sizes, random_seed=seed, sequence_length=length, split=split)
    for part, size, dataset in zip(split_ranges(corpus.num_sequences, split), sizes, datasets, strict=True):
        samples = document_samples(corpus, part, seq_length=length, vocab_size=VOCAB, num_samples=size or 0, seed=seed)
        assert_same(samples, dataset)


def test_training_and_validation_part_where_megatron_core_parts_them(corpora: dict[str, Path]) -> None:
    """Its borders are between sequences, and a document may have several."""
    corpus, data = IndexedCorpus(corpora["sequences"]), DataConfig(data_order="megatron", split="50,30,20")
    train, valid, _ = part_spans(data, corpus)
    numbers = split_ranges(corpus.num_sequences, data.split)
    assert train[1] == corpus.tokens_of_sequences(0, numbers[0][1])
    assert valid == (train[1], corpus.tokens_of_sequences(numbers[1][0], sum(numbers[1])))
    assert part_spans(DataConfig(split="50,30,20"), corpus)[0] != train


@pytest.mark.parametrize(("reset", "mask"), [(True, False), (False, True), (True, True)])
def test_the_end_of_a_document_does_what_it_does_there(reset: bool, mask: bool, tmp_path: Path) -> None:
    prefix = tmp_path / "text"
    generator = np.random.default_rng(0)
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for length in [0, 1, 2, 15, 16, 17, 40, 1, 0, 3] * 3:
            writer.add_document([*generator.integers(4, 50, length), EOD])
    dataset = theirs([str(prefix)], [None] * 3, split="1", reset_position_ids=reset, eod_mask_loss=mask)[0]
    corpus = IndexedCorpus(prefix)
    samples = document_samples(
        corpus, (0, corpus.num_sequences), seq_length=16, vocab_size=VOCAB, num_samples=0, seed=1234
    )
    assert_same(samples, dataset, DocumentRules(eod=EOD, reset_position_ids=reset, eod_mask_loss=mask))


BLENDS = [
    ["0.7", "short", "0.3", "long"],
    ["1", "short", "2", "long", "5", "even"],
    ["3", "even"],
    ["0.001", "short", "0.999", "even"],
]


@pytest.mark.parametrize("values", BLENDS, ids=" ".join)
@pytest.mark.parametrize("samples", [10, 333, 1000])
def test_blends_are_those_of_blended_dataset(corpora: dict[str, Path], values: list[str], samples: int) -> None:
    paths = tuple(str(corpora.get(value, value)) for value in values)
    dataset = theirs(paths, [samples, 0, 0], split="1")[0]
    flags = DataConfig(data_path=paths, data_order="megatron", seq_length=16, split="1")
    blend = open_blend("--data-path", paths)
    assert_same(training_samples(flags, blend, num_samples=samples, vocab_size=VOCAB, seed=1234), dataset)


@pytest.fixture(scope="module")
def constant_corpora(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Corpora of which number c holds only the token c, so that a sample says where it is from."""
    folder = tmp_path_factory.mktemp("constant")
    for number in range(8):
        with IndexedWriter(folder / str(number), np.dtype(np.uint16)) as writer:
            for _ in range(7):
                writer.add_document([number] * (5 + 3 * number))
    return [str(folder / str(number)) for number in range(8)]


# What rounds otherwise if weights are summed by another rule, or normalised once instead of twice.
KNOWN_WEIGHTS = [
    ([0.7, 0.2, 0.1], 1000),
    ([0.7, 0.2, 0.1], 32_000),
    ([0.67, 0.15, 0.045, 0.045, 0.045, 0.025, 0.02], 50_000),
    ([3, 1, 1, 2], 32_000),
    ([0.1, 17.0, 0.1], 1505),
]
_draw = np.random.default_rng(5)
RANDOM_WEIGHTS = [
    (np.round(_draw.exponential(1, _draw.integers(2, 9)) + 1e-3, int(_draw.integers(1, 8))) + 1e-3).tolist()
    for _ in range(40)
]


def corpora_of(samples: SampleSource) -> list[int]:
    """Which corpus each sample is from."""
    block = np.empty((samples.num_samples, 3), np.int32)
    samples.pack(range(samples.num_samples), block)
    return block[:, 0].tolist()


@pytest.mark.parametrize(
    ("weights", "samples"),
    [*KNOWN_WEIGHTS, *((weights, 100 + 13 * i) for i, weights in enumerate(RANDOM_WEIGHTS))],
    ids=range(len(KNOWN_WEIGHTS) + len(RANDOM_WEIGHTS)),
)
def test_weights_give_the_order_of_blended_dataset(
    constant_corpora: list[str], weights: list[float], samples: int
) -> None:
    values = tuple(x for pair in zip(map(repr, weights), constant_corpora, strict=False) for x in pair)
    dataset = theirs(values, [samples, 0, 0], split="1", sequence_length=2)[0]
    flags = DataConfig(data_path=values, data_order="megatron", seq_length=2, split="1")
    ours = training_samples(flags, open_blend("--data-path", values), num_samples=samples, vocab_size=VOCAB, seed=1234)
    assert corpora_of(ours) == dataset.dataset_index.tolist()


@pytest.mark.parametrize("samples", [1, 20, 60])
def test_without_weights_corpora_are_blended_by_their_samples(corpora: dict[str, Path], samples: int) -> None:
    paths = (str(corpora["short"]), str(corpora["even"]), str(corpora["long"]))
    dataset = theirs(paths, [samples, None, None], split="1")[0]
    flags = DataConfig(data_path=paths, data_order="megatron", seq_length=16, split="1")
    blend = open_blend("--data-path", paths)
    assert_same(training_samples(flags, blend, num_samples=samples, vocab_size=VOCAB, seed=1234), dataset)
    with pytest.raises(ConfigError, match="in one pass, but the run reads 1,000; .* need a weight before each"):
        training_samples(flags, blend, num_samples=1000, vocab_size=VOCAB, seed=1234)


def test_what_lies_beyond_the_run_is_an_index_error(corpora: dict[str, Path]) -> None:
    corpus = IndexedCorpus(corpora["even"])
    samples = document_samples(corpus, (0, 64), seq_length=16, vocab_size=VOCAB, num_samples=0, seed=1)
    block = torch.empty(1, 17, dtype=torch.int32).numpy()
    with pytest.raises(IndexError, match="is not below"):
        samples.pack([samples.num_samples], block)
    with pytest.raises(IndexError, match="below 0"):
        samples.pack([-1], block)


def test_a_part_without_a_sample_is_said(corpora: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="fewer than the 16 \\+ 1"):
        document_samples(IndexedCorpus(corpora["even"]), (0, 0), seq_length=16, vocab_size=VOCAB, num_samples=5, seed=1)
