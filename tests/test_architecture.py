"""Budgets and habits of the source, so that they stay."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests import newest
from tests.support.runs import ROOT, environment

PACKAGE = sorted((ROOT / "megatron_distill").rglob("*.py"))
PROGRAMS = [*sorted((ROOT / "tools").glob("*.py")), ROOT / "pretrain_distill.py"]
SOURCES = [*PACKAGE, *PROGRAMS]

MAX_FILE, MAX_FUNCTION, LONG_FUNCTION = 400, 100, 60
LONG_ONES: set[str] = set()
"""Functions of more than LONG_FUNCTION lines, as path:name; each needs a reason to be here."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(path:name, lines) of every function of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, Function):
            assert node.end_lineno is not None
            yield f"{name(path)}:{node.name}", node.end_lineno - node.lineno + 1


def undocumented(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            own = f"{prefix}:{child.name}"
            if ast.get_docstring(child) is None:
                yield own
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, own)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done


def test_there_is_something_to_look_at() -> None:
    assert len(PACKAGE) > 40 and len(PROGRAMS) > 5


def test_no_file_is_long() -> None:
    lines = {name(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > MAX_FILE} == {}


def test_functions_are_short() -> None:
    lengths = dict(pair for path in SOURCES for pair in functions(path))
    assert {where: count for where, count in lengths.items() if count > MAX_FUNCTION} == {}
    assert {where for where, count in lengths.items() if count > LONG_FUNCTION} == LONG_ONES


def test_no_drawer_for_odds_and_ends() -> None:
    assert [name(p) for p in SOURCES if {"utils", "util", "helpers", "misc", "common"} & {p.stem, *p.parts}] == []


def test_no_global_state() -> None:
    found = [name(path) for path in SOURCES for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]
    assert found == []


def test_no_failure_is_swallowed() -> None:
    def broad(handler: ast.ExceptHandler) -> bool:
        return handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")

    handlers = [(p, n) for p in SOURCES for n in ast.walk(tree(p)) if isinstance(n, ast.ExceptHandler)]
    assert handlers
    assert [name(p) for p, n in handlers if broad(n) and all(isinstance(s, ast.Pass) for s in n.body)] == []


def test_what_is_public_has_a_docstring() -> None:
    assert [name(path) for path in SOURCES if ast.get_docstring(tree(path)) is None] == []
    assert [where for path in PACKAGE for where in undocumented(tree(path), name(path))] == []


def test_every_test_has_a_room_that_mirrors_the_package() -> None:
    rooms = {p.parent.name for p in PACKAGE}
    rooms |= {"tests", "tools", "end_to_end", "examples", "csrc", "gpu", "support", "audit"}
    found = {p.parent.name for p in (ROOT / "tests").rglob("test_*.py")}
    assert found - rooms - {"benchmarks"} == set()


def test_importing_is_silent() -> None:
    done = run_python("-W", "error", "-c", "import megatron_distill")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "module", ["", ".config.run", ".training.plan", ".training.dry_run", ".report.summary", ".planning.describe"]
)
def test_what_needs_no_torch_does_not_import_it(module: str) -> None:
    code = f"import sys, megatron_distill{module}; print([m for m in ('torch', 'megatron') if m in sys.modules])"
    assert run_python("-c", code).stdout == "[]\n"


def test_importing_a_program_runs_nothing() -> None:
    names = [path.stem for path in PROGRAMS if path.parent.name == "tools"]
    done = run_python("-c", f"import sys; sys.path.insert(0, 'tools'); import pretrain_distill, {', '.join(names)}")
    assert (done.stdout, done.stderr) == ("", "")


def test_dependencies_are_bounded_and_pinned() -> None:
    """What moves under us has an upper bound, and a version that the tests ran with."""
    requirements = [line for line in metadata.requires("megatron_distill") or [] if 'extra == "gpu"' not in line]
    assert len(requirements) > 20
    unbounded = [line for line in requirements if "<" not in line.split(";")[0] and "megatron_distill" not in line]
    assert unbounded == []
    assert set(newest.direct_dependencies()) - set(newest.pinned()) == set()


def test_nothing_names_a_machine() -> None:
    folders = ("megatron_distill", "tools", "csrc", "docs", "examples", "benchmarks")
    texts = [ROOT / "README.md", ROOT / "pretrain_distill.py", ROOT / "pyproject.toml", ROOT / "setup.py"]
    for folder in folders:
        texts += [p for p in (ROOT / folder).rglob("*") if p.suffix in TEXT]
    place = re.compile(r"(?<![\w.}\])])/(work|home|root|tmp|Users|mnt)(/|\b)")
    assert len(texts) > 60
    found = [f"{name(p)}: {m.group()}" for p in texts for m in place.finditer(p.read_text(encoding="utf-8"))]
    assert found == []


TEXT = {".py", ".pyi", ".md", ".sh", ".sbatch", ".cpp", ".h", ".cu", ".toml", ".csv", ".txt", ".json"}
