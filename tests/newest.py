"""Tries the newest releases that pyproject.toml allows, and says which of them break the tests.

    python tests/newest.py [ARGUMENTS OF PYTEST]    all that is newer than constraints.txt together; if the tests fail,
                                                    each direct dependency alone
    python tests/newest.py --write                  write constraints.txt from this environment

Makes its own environment in .venv-newest, beside the one that the scripts use. Exit code 1 where something breaks.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
FOLDER = ROOT / ".venv-newest"
HEADER = "# What the tests ran with, on Python 3.11 without a GPU. Made by: python tests/newest.py --write\n"


def pinned() -> dict[str, str]:
    """Version of each package in constraints.txt."""
    lines = (line.split(";")[0].strip() for line in CONSTRAINTS.read_text().splitlines() if "==" in line)
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_dependencies() -> list[str]:
    """Names that pyproject.toml asks for, but for the packages that only a GPU needs."""
    wanted = metadata.requires("megatron_distill") or []
    names = [re.split(r"[<>=!~;\[ ]", line)[0] for line in wanted if 'extra == "gpu"' not in line]
    return sorted({normal(name) for name in names} - {"megatron-distill"})


def write_constraints() -> None:
    """Pin what is installed here; a build of torch for another device is the same version."""
    lines = run([sys.executable, "-m", "pip", "freeze", "--exclude-editable"]).splitlines()
    plain = (re.sub(r"\+\w+$", "", line) for line in lines if "==" in line)
    CONSTRAINTS.write_text(HEADER + "".join(f'{line} ; python_version >= "3.11"\n' for line in plain))


def run(command: list[str]) -> str:
    """What a command prints; its failure is ours."""
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


class Environment:
    """A virtual environment whose packages are exchanged between runs of the tests."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"
        if not self.python.exists():
            run([sys.executable, "-m", "venv", str(folder)])

    def install(self, *arguments: str) -> None:
        """pip install."""
        run([str(self.python), "-m", "pip", "install", "-q", *arguments])

    def versions(self) -> dict[str, str]:
        """What is installed."""
        lines = run([str(self.python), "-m", "pip", "freeze", "--exclude-editable"]).splitlines()
        pairs = (re.sub(r"\+\w+$", "", line).split("==") for line in lines if "==" in line)
        return {normal(name): version for name, version in pairs}

    def passes(self, arguments: list[str]) -> bool:
        """Whether types and tests are all right."""
        commands = [[str(self.python), "-m", "mypy"], [str(self.python), "-m", "pytest", "-n", "2", *arguments]]
        return all([subprocess.run(command, cwd=ROOT).returncode == 0 for command in commands])


def main() -> int:
    """Install, test, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    flags, pytest_arguments = parser.parse_known_args()
    if flags.write:
        write_constraints()
        return 0
    before, environment = pinned(), Environment(FOLDER)
    environment.install("--constraint", str(CONSTRAINTS), "torch==" + before["torch"])
    environment.install("--upgrade", "--upgrade-strategy", "eager", "-e", ".[dev]")
    newer = {name: version for name, version in environment.versions().items() if before.get(name) != version}
    for name, version in sorted(newer.items()):
        print(f"{name}: {before.get(name, 'not pinned')} -> {version}", flush=True)
    if not newer:
        print("constraints.txt already has the newest of everything")
    if environment.passes(pytest_arguments):
        print("the newest of everything passes")
        return 0
    broken = []
    for name in (name for name in direct_dependencies() if name in newer):
        environment.install("--constraint", str(CONSTRAINTS), "-e", ".[dev]")
        environment.install("--upgrade", f"{name}=={newer[name]}")
        if not environment.passes(["--last-failed", *pytest_arguments]):
            broken.append(f"{name} {newer[name]}")
    print(f"breaks: {', '.join(broken) or 'no direct dependency alone; look at the others above'}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
