"""The C++ readers on damaged corpora, under AddressSanitizer and UBSan: no crash, no read outside a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ROUNDS = 3000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    assert compiler is not None, "no C++ compiler, which the package itself needs; set CXX"
    folder = tmp_path_factory.mktemp("fuzz")
    probe = folder / "probe.cpp"
    probe.write_text("int main() {}")
    if subprocess.run([compiler, *SANITIZE, str(probe), "-o", str(folder / "probe")], capture_output=True).returncode:
        pytest.skip("the compiler has no sanitizers")
    sources = [path for path in (ROOT / "csrc").glob("*.cpp") if path.name != "bindings.cpp"]
    program = folder / "fuzz_reader"
    build = [compiler, "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", *SANITIZE, f"-I{ROOT / 'csrc'}"]
    subprocess.run(
        [*build, *map(str, sources), str(Path(__file__).with_name("fuzz_reader.cpp")), "-o", str(program)], check=True
    )
    return program


@pytest.mark.parametrize("seed", [1, 2])
def test_no_index_makes_the_readers_leave_their_files(driver: Path, seed: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(driver), str(tmp_path), str(ROUNDS), str(seed)], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr[-4000:]
    opened = int(done.stdout.split()[0])
    assert ROUNDS / 20 < opened < ROUNDS  # the damage is neither always fatal nor never noticed
