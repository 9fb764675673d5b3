"""Peak memory and time of from-hf and to-hf, against transformers, and against copying the file.

python benchmarks/convert.py --megabytes 1000

Makes a random Llama of about that size in bf16. Each side runs in a process of its own: `import` and `export` are ours
without the comparison of logits, `transformers` loads the folder and saves it again, `copy` is shutil.copyfile of the
weights and fsync, as ours ends with one. Peak memory is what is resident at its most, above what the imports need.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from measure import report  # noqa: E402
from peak import peak_above_inputs  # noqa: E402

SIDES = ("import", "export", "transformers", "copy")


def main() -> None:
    """Make the model, run each side, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the model")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side; medians count")
    parser.add_argument("--folder", type=Path, help="where to work, on the disk to be measured")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(one_side(arguments.only, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        compare(Path(name), arguments.megabytes, arguments.rounds)


def compare(folder: Path, megabytes: int, rounds: int) -> None:
    """Measure in `folder` and print."""
    size = make_model(folder / "theirs", megabytes)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for i in range(rounds):
        for side in SIDES if i % 2 else SIDES[::-1]:
            if side == "export" and not (folder / "ours").exists():
                run("import", folder)
            found[side].append(run(side, folder))
    peak, seconds = (
        {side: statistics.median(row[key] for row in rows) for side, rows in found.items()}
        for key in ("peak", "seconds")
    )
    more = {"model_megabytes": round(size / 1e6), "rounds": rounds}
    for side in ("import", "export"):
        report("time", seconds[side], seconds["transformers"], "s", direction=side, peer_name="transformers", **more)
        report("time", seconds[side], seconds["copy"], "s", direction=side, peer_name="plain copy", **more)
    for side in ("import", "export"):
        peer = peak["transformers"] / 1e6
        report("peak_memory", peak[side] / 1e6, peer, "MB", direction=side, peer_name="transformers", **more)


def make_model(folder: Path, megabytes: int) -> int:
    """A random model in bf16; returns the bytes of its weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    width, vocab = 1024, 32_000
    layer = 12 * width**2 + 2 * width
    layers = max(2, round((megabytes * 5e5 - 2 * vocab * width) / layer))
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 64 * 64 if width > 4096 else width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=16,
        vocab_size=vocab,
    )
    config.dtype = torch.bfloat16
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return (folder / "model.safetensors").stat().st_size


def run(side: str, folder: Path) -> dict[str, float]:
    """One side in a process of its own."""
    for name in {"import": ["ours"], "export": ["again"], "transformers": ["saved"], "copy": ["copied"]}[side]:
        shutil.rmtree(folder / name, ignore_errors=True)
    os.sync()  # what the other side wrote is not to be written in this one's time
    command = [sys.executable, __file__, "--only", side, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one_side(side: str, folder: Path) -> dict[str, float]:
    """Seconds and peak bytes of the work itself, imports left out."""
    work = {"import": import_ours, "export": export_ours, "transformers": with_transformers, "copy": copy}[side](folder)
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        begun = time.perf_counter()
        work()
        seconds = time.perf_counter() - begun

    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    return {"peak": peak_above_inputs(timed), "seconds": seconds}


def import_ours(folder: Path) -> Callable[[], object]:
    """from-hf without the comparison."""
    import megatron.core.dist_checkpointing.core  # noqa: F401 - with the imports, not with the work

    from megatron_distill.checkpoint.from_hf import import_model
    from megatron_distill.models.families import all_families

    all_families()
    return lambda: import_model(folder / "theirs", folder / "ours")


def export_ours(folder: Path) -> Callable[[], object]:
    """to-hf without the comparison."""
    from megatron_distill.checkpoint.huggingface import export
    from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest
    from megatron_distill.models.families import all_families

    all_families()

    def work() -> None:
        checkpoint = find_checkpoint(folder / "ours")
        export(checkpoint, read_manifest(checkpoint), folder / "again")

    return work


def with_transformers(folder: Path) -> Callable[[], object]:
    """Load and save."""
    from transformers import LlamaForCausalLM

    def work() -> None:
        LlamaForCausalLM.from_pretrained(folder / "theirs", dtype="auto").save_pretrained(folder / "saved")
        flush(folder / "saved" / "model.safetensors")

    return work


def copy(folder: Path) -> Callable[[], object]:
    """The weights' file."""
    (folder / "copied").mkdir()
    copied = folder / "copied" / "model.safetensors"

    def work() -> None:
        shutil.copyfile(folder / "theirs" / "model.safetensors", copied)
        flush(copied)

    return work


def flush(path: Path) -> None:
    """As our files are when a conversion says that it is done."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    main()
