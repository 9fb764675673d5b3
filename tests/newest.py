"""Tries the newest releases that pyproject.toml allows, and says which of them break the tests.

    python tests/newest.py [ARGUMENTS OF PYTEST]    all that is newer than constraints.txt together; if the tests fail,
                                                    each direct dependency alone
    python tests/newest.py --list                   only install, and print what is newer
    python tests/newest.py --write                  write constraints.txt from this environment

Makes its own environment in .venv-newest, beside the one that the scripts use. Exit code 1 where something breaks.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
FOLDER = ROOT / ".venv-newest"
HEADER = "# What the tests ran with, on Python 3.11 without a GPU. Made by: python tests/newest.py --write\n"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

Versions = Mapping[str, str]
"""Of packages by name, as PyPI compares names."""


class Tried(Protocol):
    """An environment whose packages are exchanged between runs of the tests."""

    def install(self, *arguments: str) -> None:
        """pip install."""

    def passes(self, arguments: list[str]) -> bool:
        """Whether types and tests are all right."""


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions_in(lines: Iterable[str]) -> dict[str, str]:
    """Versions in lines of `pip freeze` or of a constraints file; a build for another device is the same version."""
    plain = (re.sub(r"\+\w+$", "", line.split(";")[0].strip()) for line in lines if "==" in line)
    return {normal(name): version for name, version in (line.split("==") for line in plain)}


def pinned() -> dict[str, str]:
    """Version of each package in constraints.txt."""
    return versions_in(CONSTRAINTS.read_text().splitlines())


def direct_dependencies(requirements: Iterable[str] | None = None) -> list[str]:
    """Names that pyproject.toml asks for, but for the packages that only a GPU needs."""
    wanted = metadata.requires("megatron_distill") or [] if requirements is None else requirements
    names = [re.split(r"[<>=!~;\[ ]", line)[0] for line in wanted if 'extra == "gpu"' not in line]
    return sorted({normal(name) for name in names} - {"megatron-distill"})


def constraints(frozen: Iterable[str]) -> str:
    """A constraints file from lines of `pip freeze`."""
    plain = (re.sub(r"\+\w+$", "", line) for line in frozen if "==" in line)
    return HEADER + "".join(f'{line} ; python_version >= "3.11"\n' for line in plain)


def changes(before: Versions, now: Versions) -> dict[str, str]:
    """New version of each package that is not the one of before."""
    return {name: version for name, version in sorted(now.items()) if before.get(name) != version}


def blamed(environment: Tried, newer: Versions, direct: Iterable[str], arguments: list[str]) -> list[str]:
    """The direct dependencies whose newer version alone breaks the tests that failed, as "NAME VERSION"."""
    broken = []
    for name in (name for name in direct if name in newer):
        environment.install("--constraint", str(CONSTRAINTS), "-e", ".[dev]")
        environment.install(f"{name}=={newer[name]}")
        if not environment.passes(["--last-failed", *arguments]):
            broken.append(f"{name} {newer[name]}")
    return broken


def install_pinned(install: Callable[..., None], torch: str) -> None:
    """The pinned versions; torch without CUDA where that build can be had, which is gigabytes smaller."""
    for arguments in ([f"torch=={torch}+cpu"], [f"torch=={torch}+cpu", "--index-url", CPU_INDEX], [f"torch=={torch}"]):
        try:
            install(*arguments)
            break
        except subprocess.CalledProcessError:
            continue
    install("--constraint", str(CONSTRAINTS), "-e", ".[dev]")


class Environment:
    """A virtual environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "bin" / "python"
        if not self.python.exists():
            _run([sys.executable, "-m", "venv", str(folder)])

    def install(self, *arguments: str) -> None:
        """pip install."""
        _run([str(self.python), "-m", "pip", "install", "-q", *arguments])

    def versions(self) -> dict[str, str]:
        """What is installed."""
        return versions_in(_run([str(self.python), "-m", "pip", "freeze", "--exclude-editable"]).splitlines())

    def passes(self, arguments: list[str]) -> bool:
        """Whether types and tests are all right; the scripts that tests start use this environment, too."""
        commands = [[str(self.python), "-m", "mypy"], [str(self.python), "-m", "pytest", "-n", "2", *arguments]]
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        own = os.environ | {"PATH": path, "VIRTUAL_ENV": str(self.folder), "NO_VENV": "1"}
        return all([subprocess.run(command, cwd=ROOT, env=own).returncode == 0 for command in commands])


def _run(command: list[str]) -> str:
    """What a command prints; its failure is ours."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def main() -> int:
    """Install, test, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--list", action="store_true")
    flags, pytest_arguments = parser.parse_known_args()
    if flags.write:
        CONSTRAINTS.write_text(
            constraints(_run([sys.executable, "-m", "pip", "freeze", "--exclude-editable"]).split("\n"))
        )
        return 0
    before, environment = pinned(), Environment(FOLDER)
    install_pinned(environment.install, before["torch"])
    environment.install("--upgrade", "--upgrade-strategy", "eager", "-e", ".[dev]")
    newer = changes(before, environment.versions())
    for name, version in newer.items():
        print(f"{name}: {before.get(name, 'not pinned')} -> {version}", flush=True)
    if not newer:
        print("constraints.txt already has the newest of everything")
    if flags.list:
        return 0
    if environment.passes(pytest_arguments):
        print("the newest of everything passes")
        return 0
    broken = blamed(environment, newer, direct_dependencies(), pytest_arguments)
    print(f"breaks: {', '.join(broken) or 'no direct dependency alone; look at the others above'}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
