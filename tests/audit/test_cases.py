"""Every situation that users met has tests, and they are where CASES says."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.audit.cases import CASES
from tests.support.runs import ROOT

WITHOUT_TEST = {"interop-F3", "data-D13"}
"""Limits that the documentation states, and faults that still want a test."""


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """Names of a file's tests; of those in classes as CLASS::NAME."""
    body = ast.parse(path.read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    nodes = [("", node) for node in body] + [(f"{owner.name}::", node) for owner in classes for node in owner.body]
    functions = [(prefix, node.name) for prefix, node in nodes if isinstance(node, ast.FunctionDef)]
    found = {prefix + name for prefix, name in functions if name.startswith("test_")}
    return frozenset(found)


@pytest.mark.parametrize("name", CASES)
def test_its_tests_are_there(name: str) -> None:
    nodes = CASES[name][1]
    assert bool(nodes) == (name not in WITHOUT_TEST)
    for node in nodes:
        file, _, test = node.partition("::")
        assert test in names_of_tests(ROOT / file), node
