"""MB/s of text that tools/preprocess_data.py makes a corpus of, whole process, against another program.

python benchmarks/preprocess.py --input text.jsonl --tokenizer tokenizer.json --workers 2 \
    --peer megatron-lm --megatron-lm path/to/Megatron-LM

Peers: `megatron-lm` and `megatron-lm-fast`, the two scripts of a checkout of Megatron-LM; `datatrove`'s tokenizer
pipeline; and `library`, the tokenizer's own threads over the same file without writing anything: gigatoken where we use
it, else `tokenizers`. Start-up counts on both sides. Memory is the highest sum over all processes, with shared pages
counted once (PSS, Linux). With Megatron-LM the corpora are compared byte by byte.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from measure import report  # noqa: E402

from megatron_distill.data.prepare.encode import load_fast  # noqa: E402
from megatron_distill.data.tokenizer import load_tokenizer  # noqa: E402

LIBRARY = {
    "gigatoken": """
import sys, gigatoken
gigatoken.Tokenizer(sys.argv[2]).encode_files(gigatoken.JsonlFileSource([sys.argv[1]], field="text"))
""",
    "tokenizers": """
import json, sys, tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[2])
with open(sys.argv[1], "rb") as file:
    while lines := file.readlines(4_000_000):
        tokenizer.encode_batch_fast([json.loads(line)["text"] for line in lines], add_special_tokens=False)
""",
}
DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer

if __name__ == "__main__":
    source, tokenizer, output, workers = sys.argv[1:]
    folder, _, name = source.rpartition("/")
    steps = [
        JsonlReader(folder, glob_pattern=name),
        DocumentTokenizer(output, tokenizer_name_or_path=tokenizer, eos_token="<|endoftext|>", shuffle_documents=False),
    ]
    LocalPipelineExecutor(steps, tasks=int(workers), workers=int(workers), logging_dir=output + "/logs").run()
"""


@dataclass(frozen=True)
class Cost:
    """What a process and its children needed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def main() -> None:
    """Run both sides in turns and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="one .jsonl file with a field text")
    parser.add_argument("--tokenizer", required=True, help="a tokenizer.json or its folder")
    parser.add_argument("--peer", choices=("megatron-lm", "megatron-lm-fast", "datatrove", "library"), required=True)
    parser.add_argument("--megatron-lm", type=Path, help="a checkout of Megatron-LM")
    parser.add_argument("--workers", type=int, default=2, help="cores of each side")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each side; medians count")
    arguments = parser.parse_args()
    if arguments.peer.startswith("megatron-lm") and not arguments.megatron_lm:
        parser.error("--peer megatron-lm needs --megatron-lm PATH")
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure in `folder` and print."""
    tokenizer = load_tokenizer(arguments.tokenizer)
    (folder / "tokenizer").mkdir()
    tokenizer.save_huggingface(folder / "tokenizer")
    engine = "gigatoken" if load_fast(tokenizer)[0] else "tokenizers"
    ours = [sys.executable, ROOT / "tools" / "preprocess_data.py", "--input", arguments.input]
    ours += ["--tokenizer", arguments.tokenizer, "--output-prefix", folder / "ours", "--workers", arguments.workers]
    costs: tuple[list[Cost], list[Cost]] = ([], [])
    # Megatron-LM's scripts look for megatron-core behind all that is installed; they are to use the one they came with.
    path = os.pathsep.join(filter(None, (str(arguments.megatron_lm or ""), os.environ.get("PYTHONPATH"))))
    sides = list(zip(costs, (ours, peer_command(arguments, folder, engine)), strict=True))
    for i in range(arguments.rounds):
        for found, command in sides if i % 2 else sides[::-1]:
            found.append(run(command, arguments.workers, path))
    mine, theirs = (statistics.median(cost.seconds for cost in side) for side in costs)
    megabytes = arguments.input.stat().st_size / 1e6
    more = {
        "peer_name": arguments.peer,
        "engine": engine,
        "megabytes": round(megabytes, 1),
        "workers": arguments.workers,
    }
    if arguments.peer.startswith("megatron-lm"):
        more["same_bytes"] = all(
            (folder / f"ours.{kind}").read_bytes() == (folder / f"theirs_text_document.{kind}").read_bytes()
            for kind in ("bin", "idx")
        )
    report("preprocess", megabytes / mine, megabytes / theirs, "MB/s", **more)
    if arguments.peer != "datatrove":  # whose processes are nobody's children, so that nobody knows what they used
        mine, theirs = (statistics.median(cost.cpu_seconds for cost in side) for side in costs)
        report("preprocess_cpu", megabytes / mine, megabytes / theirs, "MB per CPU second", **more)
    mine, theirs = (statistics.median(cost.peak_bytes for cost in side) for side in costs)
    report("preprocess_memory", mine / 1e6, theirs / 1e6, "MB", **more)


def peer_command(arguments: argparse.Namespace, folder: Path, engine: str) -> list[object]:
    """The other side's command line."""
    if arguments.peer == "library":
        return [sys.executable, "-c", LIBRARY[engine], arguments.input, folder / "tokenizer" / "tokenizer.json"]
    if arguments.peer == "datatrove":
        script = folder / "pipeline.py"
        script.write_text(DATATROVE)
        tokenizer = folder / "tokenizer" / "tokenizer.json"
        return [sys.executable, script, arguments.input.absolute(), tokenizer, folder / "theirs", arguments.workers]
    fast = arguments.peer == "megatron-lm-fast"
    script = arguments.megatron_lm / "tools" / ("preprocess_data_fast.py" if fast else "preprocess_data.py")
    command = [sys.executable, script, "--input", arguments.input, "--output-prefix", folder / "theirs", "--append-eod"]
    command += ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", folder / "tokenizer"]
    return command + (["--use-gigatoken"] if fast else ["--workers", arguments.workers])


def run(command: list[object], workers: int, python_path: str) -> Cost:
    """Start a program and watch it to its end."""
    begun, cpu, peak = time.perf_counter(), cpu_seconds(), 0
    environment = os.environ | {"RAYON_NUM_THREADS": str(workers), "PYTHONPATH": python_path}
    process = psutil.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    while process.poll() is None:
        peak = max(peak, memory(process))
        time.sleep(0.05)
    seconds = time.perf_counter() - begun
    if process.returncode != 0:
        raise SystemExit(f"{command[1]} ended with exit code {process.returncode}:\n{process.stderr.read().decode()}")
    return Cost(seconds, cpu_seconds() - cpu, peak)


def cpu_seconds() -> float:
    """Of all children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(process: psutil.Process) -> int:
    """Bytes that a process and its children hold; what they share counts once."""
    total = 0
    with suppress(psutil.NoSuchProcess):  # all have just ended
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # this one has; the others still count
                total += member.memory_full_info().pss
    return total


if __name__ == "__main__":
    main()
