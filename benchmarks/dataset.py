"""The data engine beside megatron-core's GPTDataset: seconds to the first batch, memory, samples/s.

python benchmarks/dataset.py                           # 1e7, 1e8 and 1e9 tokens
python benchmarks/dataset.py --documents 365000000     # C4: 7 GB of index, and 10 GB of memory for the peer

Corpora are uint16, documents of 438 tokens on average, .bin a sparse file; both sides read the same one, at sequence
length 2,048, one pass, with the page cache warm. First batches and memory are measured in processes of their own, after
the imports. A batch is 8 samples, the peer's put together by torch's default_collate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")

from measure import report, seconds_in_turns  # noqa: E402

from megatron_distill.config.sections import DataConfig  # noqa: E402
from megatron_distill.data.blend import open_blend  # noqa: E402
from megatron_distill.data.loader import BatchLoader  # noqa: E402
from megatron_distill.data.samples import training_samples  # noqa: E402

SEQ, BATCH, VOCAB = 2048, 8, 50304
MEAN_DOCUMENT = 438  # C4's 160e9 tokens over its 365 M documents
CHUNK = 2_000_000
Reader = Callable[[Sequence[int]], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", help="sizes; default: those of 1e7, 1e8 and 1e9 tokens")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each side for samples/s")
    parser.add_argument("--probe", choices=["stream", "megatron", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--prefix", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.probe:
        print(json.dumps(first_batch(arguments.probe, arguments.prefix)))
        return
    for documents in arguments.documents or [round(10**exponent / MEAN_DOCUMENT) for exponent in (7, 8, 9)]:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            prefix = f"{folder}/corpus"
            tokens = write_sparse(prefix, documents)
            compare_first_batches(prefix, tokens)
            compare_rates(prefix, tokens, arguments.rounds)


def write_sparse(prefix: str, documents: int) -> int:
    """A corpus of `documents` with lengths of 1 to 875, its tokens a hole in the file; returns how many they are."""
    generator = np.random.default_rng(0)
    sizes = [min(CHUNK, documents - first) for first in range(0, documents, CHUNK)]
    with Path(f"{prefix}.idx").open("wb") as index, tempfile.TemporaryFile() as offsets:
        index.write(b"MMIDIDX\0\0" + np.array([1], "<u8").tobytes() + b"\x08")
        index.write(np.array([documents, documents + 1], "<u8").tobytes())
        end = 0
        for size in sizes:
            lengths = generator.integers(1, 2 * MEAN_DOCUMENT, size, dtype=np.int32)
            index.write(lengths.tobytes())
            ends = end + np.cumsum(lengths, dtype=np.int64)
            offsets.write(((ends - lengths) * 2).tobytes())
            end = int(ends[-1])
        offsets.seek(0)
        while block := offsets.read(1 << 24):
            index.write(block)
        for first in range(0, documents + 1, CHUNK):
            index.write(np.arange(first, min(first + CHUNK, documents + 1), dtype=np.int64).tobytes())
    with Path(f"{prefix}.bin").open("wb") as tokens:
        tokens.truncate(2 * end)
    return end


def ours(prefix: str, order: str) -> Reader:
    """The loader of a run, its corpus opened."""
    data = DataConfig(data_path=(prefix,), seq_length=SEQ, data_order=order, split="1")  # type: ignore[arg-type]
    blend = open_blend("--data-path", (prefix,))
    return BatchLoader(training_samples(data, blend, num_samples=1, vocab_size=VOCAB, seed=1)).batch


def peer(prefix: str) -> Reader:
    """megatron-core's dataset, its indices built in a new cache."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=SEQ,
        blend=([prefix], None),
        split="1",
        tokenizer=SimpleNamespace(eod=0, pad=-1, vocab_size=None, unique_identifiers={}),  # type: ignore[arg-type]
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        path_to_cache=tempfile.mkdtemp(dir=Path(prefix).parent),
    )
    dataset: Any = BlendedMegatronDatasetBuilder(GPTDataset, [None] * 3, lambda: True, config).build()[0]
    return lambda positions: default_collate([dataset[i] for i in positions])


def first_batch(side: str, prefix: str) -> tuple[float, float]:
    """Seconds and MB until a batch is there; MB: how far resident memory rose at most."""
    import megatron.core.datasets.blended_megatron_dataset_builder
    import megatron.core.datasets.gpt_dataset
    import megatron.core.datasets.helpers  # noqa: F401 - the peer's imports should not count

    torch.empty(BATCH, SEQ).fill_(1)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    begun = time.perf_counter()
    read = peer(prefix) if side == "peer" else ours(prefix, side)
    read(range(BATCH))
    return time.perf_counter() - begun, resident("VmHWM") - before


def resident(field: str) -> float:
    """MB of this process, now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3


def compare_first_batches(prefix: str, tokens: int) -> None:
    """Each side three times, in turns; the fastest and the smallest count."""
    sides = ("stream", "megatron", "peer")
    runs: dict[str, list[list[float]]] = {side: [] for side in sides}
    for _ in range(3 if tokens < 10**10 else 1):
        for side in sides:
            command = [sys.executable, __file__, "--probe", side, "--prefix", prefix]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    best = {side: [min(column) for column in zip(*runs[side], strict=True)] for side in sides}
    for order in sides[:2]:
        report("first_batch_s", best[order][0], best["peer"][0], "s", tokens=tokens, order=order)
        report("memory", best[order][1], best["peer"][1], "MB", tokens=tokens, order=order)


def compare_rates(prefix: str, tokens: int, rounds: int) -> None:
    """Samples/s in one thread; positions go on from turn to turn, so no sample is read twice where there are enough."""
    theirs = peer(prefix)
    samples = (tokens - 1) // SEQ
    for order in ("stream", "megatron"):
        at = {"ours": 0, "peer": 0}

        def turn(side: str, read: Reader, count: int, at: dict[str, int] = at) -> None:
            for _ in range(count):
                first = at[side] % (samples - BATCH)
                read(range(first, first + BATCH))
                at[side] += BATCH

        mine = ours(prefix, order)
        fast, slow = seconds_in_turns(
            lambda mine=mine, turn=turn: turn("ours", mine, 1000),  # type: ignore[misc]
            lambda turn=turn: turn("peer", theirs, 50),  # type: ignore[misc]
            rounds=rounds,
        )
        report("samples_per_s", 1000 * BATCH / fast, 50 * BATCH / slow, "samples/s", tokens=tokens, order=order)


if __name__ == "__main__":
    main()
