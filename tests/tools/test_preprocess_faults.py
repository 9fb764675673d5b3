"""tools/preprocess_data.py when it is killed, run twice, or out of disk."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.runs import ROOT, environment
from tests.support.tools import refusal, run_tool

KILLS = 20


@pytest.fixture
def shards(text_file: Path, tmp_path: Path) -> list[Path]:
    """Six shards that take longer than starting the program does."""
    lines = text_file.read_bytes().splitlines(keepends=True)
    paths = [tmp_path / f"{i}.json.gz" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(gzip.compress(b"".join(lines[10 * i : 10 * i + 10]) * 60))
    return paths


def flags(shards: list[Path], tokenizer: Path, prefix: Path, *more: object) -> list[object]:
    return ["--input", *shards, "--tokenizer", tokenizer, "--output-prefix", prefix, *more]


def start(*arguments: object) -> subprocess.Popen[str]:
    """The tool, with processes for as little text as there is here."""
    code = (
        "import runpy; from megatron_distill.data.prepare import crew; crew.WORKER_BYTES = 1; "
        f"runpy.run_path({str(ROOT / 'tools' / 'preprocess_data.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def refused(*arguments: object) -> str:
    """What the tool says as it refuses."""
    process = start(*arguments)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in said, said
    return said.strip()


def contents(prefix: Path) -> list[bytes]:
    return [Path(f"{prefix}.{kind}").read_bytes() for kind in ("bin", "idx")]


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(shards: list[Path], bpe_file: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    start(*flags(shards, bpe_file, tmp_path / "whole", "--workers", 2)).communicate(timeout=60)
    seconds = time.monotonic() - begun
    generator, prefix = random.Random(0), tmp_path / "corpus"
    for kill in range(KILLS):
        process = start(*flags(shards, bpe_file, prefix, "--workers", 1 + kill % 2))
        time.sleep(generator.uniform(0.2, 1.1) * seconds)
        process.kill()
        _, said = process.communicate(timeout=60)
        assert process.returncode in (0, -9), said
        assert Path(f"{prefix}.bin").exists() or not Path(f"{prefix}.idx").exists()
    run_tool("preprocess_data", *flags(shards, bpe_file, prefix))
    assert contents(prefix) == contents(tmp_path / "whole")
    assert not Path(f"{prefix}.parts").exists()


def test_workers_do_not_outlive_the_run(shards: list[Path], bpe_file: Path, tmp_path: Path) -> None:
    process = start(*flags(shards * 20, bpe_file, tmp_path / "corpus", "--workers", 2))
    parts = tmp_path / "corpus.parts"
    while not list(parts.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)  # returns when the last process that holds the pipe of errors is gone
    before = sorted(path.name for path in parts.iterdir())
    time.sleep(0.2)
    assert sorted(path.name for path in parts.iterdir()) == before


def test_the_second_process_is_refused(shards: list[Path], bpe_file: Path, tmp_path: Path) -> None:
    first = start(*flags(shards * 20, bpe_file, tmp_path / "corpus", "--workers", 1))
    while not (tmp_path / "corpus.parts" / "lock").exists():
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    said = refusal("preprocess_data", *flags(shards, bpe_file, tmp_path / "corpus"))
    assert f"process {first.pid} of" in said and "is writing" in said and "--output-prefix" in said
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_shard_keeps_what_is_done(shards: list[Path], bpe_file: Path, tmp_path: Path, workers: int) -> None:
    shards[5].write_bytes(shards[5].read_bytes()[:-100])
    said = refused(*flags(shards, bpe_file, tmp_path / "corpus", "--workers", workers))
    assert "5.json.gz, after line" in said and "finished parts stay in" in said and "the same command" in said
    assert not list(tmp_path.glob("corpus.parts/*.partial")) and not (tmp_path / "corpus.bin").exists()


def test_bad_lines_that_were_left_out_are_said(shards: list[Path], bpe_file: Path, tmp_path: Path) -> None:
    shards[0].write_bytes(shards[0].read_bytes() + gzip.compress(b'{"text": 1}\n' * 12))
    done = run_tool("preprocess_data", *flags(shards, bpe_file, tmp_path / "corpus", "--on-error", "skip"))
    said = done.stderr.splitlines()
    assert said[0] == "12 bad lines were left out, the first of them:" and len(said) == 11
    assert said[1] == f"{shards[0]}, line 601: 'text' holds no text but int; give another --text-key"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_said_and_the_run_goes_on_later(
    shards: list[Path], bpe_file: Path, tmp_path: Path, small_disk: Path, workers: int
) -> None:
    run_tool("preprocess_data", *flags(shards, bpe_file, tmp_path / "whole"))
    room = (tmp_path / "whole.bin").stat().st_size // len(shards) * 5 // 2  # two workers finish one part each, at least
    (small_disk / "hog").write_bytes(os.urandom(shutil.disk_usage(small_disk).free - room))
    arguments = flags(shards, bpe_file, small_disk / "corpus", "--workers", workers)
    said = refused(*arguments)
    assert "corpus.parts: No space left on device; free some" in said and "finished parts stay" in said
    assert sorted(path.name for path in small_disk.iterdir()) == ["corpus.parts", "hog"]
    (small_disk / "hog").unlink()
    run_tool("preprocess_data", *arguments)
    assert contents(small_disk / "corpus") == contents(tmp_path / "whole")


def test_starting_imports_nothing_large() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tools'); import preprocess_data; import megatron_distill.data.prepare.worker; "
        "from megatron_distill.data.prepare.encode import find_gigatoken; find_gigatoken(); "
        "print([m for m in ('torch', 'transformers', 'megatron', 'awkward', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
