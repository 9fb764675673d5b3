"""What tests/newest.py makes of versions; without installing anything."""

from __future__ import annotations

import subprocess

import pytest

from tests import newest

FROZEN = ["torch==2.13.0+cpu", "Lm_Eval==0.4.13", "-e git+https://x", "", "msgspec==0.21.0"]


def test_versions_of_pip_and_of_a_constraints_file_are_the_same() -> None:
    expected = {"torch": "2.13.0", "lm-eval": "0.4.13", "msgspec": "0.21.0"}
    assert newest.versions_in(FROZEN) == expected
    written = newest.constraints(FROZEN)
    assert newest.versions_in(written.splitlines()) == expected
    assert written.startswith("# ") and 'Lm_Eval==0.4.13 ; python_version >= "3.11"\n' in written


def test_every_pin_is_within_the_bounds_of_pyproject() -> None:
    from packaging.requirements import Requirement

    pins = newest.pinned()
    wanted = [Requirement(line) for line in newest.metadata.requires("megatron_distill") or []]
    bounded = [r for r in wanted if r.marker is None or not r.marker.evaluate({"extra": "gpu"})]
    outside = [str(r) for r in bounded if (n := newest.normal(r.name)) in pins and not r.specifier.contains(pins[n])]
    assert len(bounded) > 15 and outside == []


def test_direct_dependencies_are_those_without_a_gpu() -> None:
    lines = ["torch<2.14,>=2.6", 'flash-attn>=2.7; extra == "gpu"', 'lm_eval<1; extra == "eval"']
    assert newest.direct_dependencies([*lines, 'megatron_distill[eval]; extra == "dev"']) == ["lm-eval", "torch"]


def test_changes_are_packages_of_another_version() -> None:
    assert newest.changes({"a": "1", "b": "2"}, {"b": "3", "c": "1", "a": "1"}) == {"b": "3", "c": "1"}


class Fake:
    """An environment in which chosen versions break the tests."""

    def __init__(self, *breaking: str) -> None:
        self.breaking, self.installed, self.calls = set(breaking), set[str](), list[list[str]]()

    def install(self, *arguments: str) -> None:
        """The pinned versions again, or one newer package."""
        self.installed = set() if "--constraint" in arguments else self.installed | set(arguments)

    def passes(self, arguments: list[str]) -> bool:
        """Whether none of the breaking ones is there."""
        self.calls.append(arguments)
        return not self.installed & self.breaking


def test_the_dependency_that_breaks_is_named_alone() -> None:
    newer = {"numpy": "2.5", "transformers": "5.25", "certifi": "2027"}
    environment = Fake("transformers==5.25", "certifi==2027")
    direct = ["numpy", "torch", "transformers"]
    assert newest.blamed(environment, newer, direct, ["tests/data"]) == ["transformers 5.25"]
    assert environment.calls == [["--last-failed", "tests/data"]] * 2


@pytest.mark.parametrize(("available", "tries"), [({"+cpu"}, 1), ({"--index-url"}, 2), (set(), 3)])
def test_torch_without_cuda_is_tried_first(available: set[str], tries: int) -> None:
    installed: list[tuple[str, ...]] = []

    def install(*arguments: str) -> None:
        installed.append(arguments)
        torch = arguments[0].startswith("torch")
        from_index = "--index-url" in arguments
        found = "+cpu" not in arguments[0] or ("--index-url" if from_index else "+cpu") in available
        if torch and not found:
            raise subprocess.CalledProcessError(1, "pip")

    newest.install_pinned(install, "2.13.0")
    assert len(installed) == tries + 1
    assert installed[-1][:1] == ("--constraint",)
