"""Which code a run uses: versions of packages, the commit, and a checksum of the package's own source."""

from __future__ import annotations

import os
import platform
import subprocess
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from megatron_distill import __version__

_PACKAGES = ("torch", "megatron-core", "numpy", "transformers", "transformer-engine", "flash-attn", "apex")


def versions() -> dict[str, str]:
    """Versions of this program, Python and the packages that compute."""
    found = {"megatron_distill": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the source, with "-dirty" if files have changed since; None if it is not in its own repository."""
    root = Path(__file__).resolve().parents[2]
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root:
            return None  # it is installed somewhere within another repository
        dirty = "-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
        return _git(root, "rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *words: str) -> str:
    git = ["git", "-C", str(root), *words]
    return subprocess.run(git, capture_output=True, text=True, check=True, env=os.environ).stdout.strip()


def source_checksum() -> str:
    """CRC-32 of the package's Python files, names included."""
    root, value = Path(__file__).parents[1], 0
    for path in sorted(root.rglob("*.py")):
        value = zlib.crc32(path.read_bytes(), zlib.crc32(path.relative_to(root).as_posix().encode(), value))
    return f"{value:08x}"
