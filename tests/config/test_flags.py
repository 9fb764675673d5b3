"""Dataclasses become flags, and flags become the same dataclasses."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import field_docs, flag_parser, parse, section, to_flags
from megatron_distill.config.run import RunConfig
from megatron_distill.config.sections import ParallelConfig

GOLDEN = Path(__file__).with_name("flags.txt")


@dataclass(frozen=True, kw_only=True)
class InnerConfig:
    """A section."""

    depth: int = 2
    """How deep, in 100 % of all cases."""
    wide: bool = True
    """Whether it is wide."""


@dataclass(frozen=True, kw_only=True)
class OuterConfig:
    """Every kind of field."""

    name: str
    """Has no default."""
    rate: float = 1e-3
    """A number
    on two lines."""
    seed: int = 0
    """May be negative."""
    limit: int | None = None
    """May be absent."""
    where: Path | None = None
    """A path."""
    style: Literal["round", "square"] = "round"
    """One of two."""
    sizes: tuple[int, ...] = (1, 2)
    """Several."""
    loud: bool = False
    """Off at first."""
    inner: InnerConfig = section(InnerConfig)
    other: InnerConfig = section(InnerConfig, prefix="other")


def reread(flags: list[str]) -> OuterConfig:
    """What a shell makes of the flags."""
    return parse(OuterConfig, shlex.split(" ".join(flags)))


def all_flags(config_class: type) -> dict[str, str]:
    """Name and help text of every flag."""
    actions = [action for action in flag_parser(config_class)._actions if action.dest != "help"]
    return {action.option_strings[0]: action.help or "" for action in actions}


inners = st.builds(InnerConfig, depth=st.integers(-9, 9), wide=st.booleans())
outers = st.builds(
    OuterConfig,
    name=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(),
    limit=st.none() | st.integers(0),
    where=st.none() | st.sampled_from([Path("a b/c"), Path("x#y"), Path("-q"), Path("@q"), Path("$HOME/'q'")]),
    style=st.sampled_from(["round", "square"]),
    sizes=st.lists(st.integers(-5, 99), min_size=1, max_size=4).map(tuple),
    loud=st.booleans(),
    inner=inners,
    other=inners,
)


@settings(max_examples=60, deadline=None)
@given(outers)
def test_flags_of_a_config_give_it_again(config: OuterConfig) -> None:
    assert reread(to_flags(config)) == config


@settings(max_examples=60, deadline=None)
@given(outers)
def test_a_file_of_flags_gives_the_config_again(tmp_path_factory: pytest.TempPathFactory, config: OuterConfig) -> None:
    path = tmp_path_factory.getbasetemp() / "flags.txt"
    path.write_text("# what a run wrote\n\n" + "\n".join(to_flags(config)) + "\n", encoding="utf-8")
    assert parse(OuterConfig, [f"@{path}"]) == config


def test_only_what_differs_becomes_a_flag() -> None:
    assert to_flags(OuterConfig(name="x")) == ["--name x"]
    config = OuterConfig(name="x", sizes=(3,), loud=True, other=InnerConfig(depth=5, wide=False))
    assert to_flags(config) == ["--name x", "--sizes 3", "--loud", "--other-depth 5", "--no-other-wide"]


def test_a_prefix_keeps_two_sections_of_one_class_apart() -> None:
    config = parse(OuterConfig, ["--name", "x", "--depth", "7", "--other-depth", "8", "--no-other-wide"])
    assert (config.inner, config.other) == (InnerConfig(depth=7), InnerConfig(depth=8, wide=False))


def test_a_whole_section_may_be_there_twice() -> None:
    @dataclass(frozen=True, kw_only=True)
    class TwoConfig:
        student: ParallelConfig = section(ParallelConfig)
        teacher: ParallelConfig = section(ParallelConfig, prefix="teacher")

    names = all_flags(TwoConfig)
    assert {"--tensor-model-parallel-size", "--teacher-tensor-model-parallel-size"} <= names.keys()
    assert len(names) == 2 * len(dataclasses.fields(ParallelConfig))
    config = parse(TwoConfig, ["--teacher-tensor-model-parallel-size", "4", "--teacher-sequence-parallel"])
    assert config.student == ParallelConfig()
    assert config.teacher == ParallelConfig(tensor_model_parallel_size=4, sequence_parallel=True)


def test_a_file_has_comments_and_what_follows_it_wins(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("# a model\n--name 'a # b'  # quoted\n\n--rate 0.5 --loud\n   --sizes 4 5 6\n")
    assert parse(OuterConfig, [f"@{path}", "--no-loud"]) == OuterConfig(name="a # b", rate=0.5, sizes=(4, 5, 6))


def test_files_may_name_files(tmp_path: Path) -> None:
    (tmp_path / "inner.txt").write_text("--rate 2\n")
    (tmp_path / "outer.txt").write_text(f"--name x\n@{tmp_path}/inner.txt\n")
    assert parse(OuterConfig, [f"@{tmp_path}/outer.txt"]) == OuterConfig(name="x", rate=2.0)


def test_a_file_with_an_open_quote_is_said(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("--name 'x\n")
    with pytest.raises(ConfigError, match="--name 'x.*quotation"):
        parse(OuterConfig, [f"@{path}"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "--name"),
        (["--name", "x", "--style", "oval"], "'oval'.*'round', 'square'"),
        (["--name", "x", "--sizes", "1", "b"], "--sizes: 'b' is not a whole number"),
        (["--name", "x", "--sizes"], "--sizes"),
        (["--name", "x", "--seed", "1.5"], "--seed: '1.5' is not a whole number"),
        (["--name", "x", "--rate", "inf"], "--rate: 'inf' is not a finite number"),
        (["--name", "x", "--loud", "yes"], "'yes' stands where a flag was expected"),
        (["--name", "x", "--dept", "3"], "there is no flag --dept; did you mean --depth"),
        (["--name", "x", "--other-dept=3"], "there is no flag --other-dept; did you mean --other-depth"),
        (["--name", "x", "--zzzz"], "there is no flag --zzzz; see --help"),
        (["@nowhere.txt"], "there is no file of flags nowhere.txt"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(flags: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse(OuterConfig, flags)
    assert "\n" not in str(caught.value)


def test_a_type_no_flag_can_hold_is_a_programming_error() -> None:
    @dataclass(frozen=True, kw_only=True)
    class OddConfig:
        table: dict[str, int] = dataclasses.field(default_factory=dict)

    with pytest.raises(TypeError, match="dict"):
        parse(OddConfig, [])


def test_help_shows_text_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(OuterConfig, ["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("Every kind of field.", "--name", "A number on two lines. (default: 0.001)", "{round,square}"):
        assert part in said
    assert "--other-depth OTHER_DEPTH How deep, in 100 % of all cases. (default: 2)" in said


def test_every_field_of_a_run_has_a_help_text() -> None:
    assert field_docs(InnerConfig) == {"depth": "How deep, in 100 % of all cases.", "wide": "Whether it is wide."}
    assert [name for name, text in all_flags(RunConfig).items() if not text.strip()] == []


def test_no_flag_is_renamed_by_accident() -> None:
    found = sorted(all_flags(RunConfig))
    assert found == GOLDEN.read_text().split(), (
        "flags of a run have changed; if that is meant, write the new names, sorted, into tests/config/flags.txt"
    )


def test_defaults_of_a_run_pass_its_own_checks() -> None:
    config = parse(RunConfig, ["--data-path", "c", "--save", "r", "--train-iters", "1"])
    assert math.isclose(config.optimizer.lr, 3e-4)
    assert to_flags(config) == ["--data-path c", "--train-iters 1", "--save r"]
