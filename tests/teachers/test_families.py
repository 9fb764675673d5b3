"""Teachers of every family, with vocabularies of other sizes and padding; the long form is in docs/parity.md."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from megatron_distill.checkpoint.from_hf import import_model
from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.training.plan import make_plan
from megatron_distill.training.teaching import build_terms
from tests.support.public_models import MODELS
from tests.teachers.families import CASES, LOSSES, check_families, make_teachers, student_base, write_tokenizer
from tests.teachers.parity import Case, Removal, distil_flags

SOME = ["gpt2", "palm-paper"]
"""On every layout: with and without padding, the second with a norm over the full width."""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The student before it is pruned."""
    return student_base(tmp_path_factory.mktemp("student"), corpus)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model of MODELS."""
    folder = tmp_path_factory.mktemp("teachers")
    make_teachers(folder, list(MODELS))
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_teachers_of_other_families(case: Case, student: Path, teachers: Path, corpus: Path, tmp_path: Path) -> None:
    names, losses = (list(MODELS), ["forward KL"]) if case is CASES[0] else (SOME, list(LOSSES))
    found = check_families(case, teachers, corpus, student, tmp_path, names, losses)
    assert all(agreement.loss < 2e-5 and agreement.gradient < 2e-5 for agreement in found.values()), found


@pytest.mark.parametrize(
    ("student_tokens", "teacher_tokens", "says"),
    [
        (None, 75, "the teacher knows 76 tokens and the student 75; give the student's --tokenizer"),
        (75, None, "keeps no tokenizer that shows whether they mean the same"),
        (75, -76, "is another tokenizer than that of"),
        (75, 76, None),
    ],
)
def test_vocabularies_of_other_sizes_are_compared_by_their_tokenizers(
    student_tokens: int | None,
    teacher_tokens: int | None,
    says: str | None,
    student: Path,
    teachers: Path,
    corpus: Path,
    tmp_path: Path,
) -> None:
    theirs = copytree(teachers / "theirs" / "palm", tmp_path / "theirs", ignore=ignore_patterns("tokenizer.json"))
    if teacher_tokens is not None:
        write_tokenizer(theirs / "tokenizer.json", abs(teacher_tokens), backwards=teacher_tokens < 0)
    teacher = tmp_path / "teacher"
    import_model(theirs, teacher)
    flags = [
        *distil_flags(student, corpus),
        *Removal().flags(),
        "--save",
        str(tmp_path / "run"),
        "--teacher-placement",
        "colocated",
    ]
    if student_tokens is not None:
        flags += ["--tokenizer", str(write_tokenizer(tmp_path / "tokenizer.json", student_tokens))]
    flags += ["--teacher-load", str(teacher), "--loss", "vanilla"]
    if says is None:
        assert build_terms(make_plan(parse(RunConfig, flags), world_size=1))
        return
    with pytest.raises(ConfigError) as caught:
        build_terms(make_plan(parse(RunConfig, flags), world_size=1))
    assert says in str(caught.value)
