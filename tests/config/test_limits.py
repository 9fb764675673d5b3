"""What a flag's value may be."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterator

import pytest

from megatron_distill.config.limits import Range, number, path, reader, whole_number, word
from megatron_distill.config.run import RunConfig
from megatron_distill.planning.request import PlanConfig

HUGE = ["9" * 30, str(1 << 70), "-" + "9" * 30, "1e300", "-1e300", "nan", "inf", "-inf", "²", "", "0x10", "9" * 6000]


def number_fields(config_class: type) -> Iterator[tuple[str, type, dataclasses.Field[object]]]:
    """Name, type and field of every flag that is a number."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from number_fields(typing.cast(type, hint))
            continue
        kinds = {int, float} & {hint, *typing.get_args(hint)}
        if kinds:
            yield f"{config_class.__name__}.{field.name}", kinds.pop(), field


FIELDS = [*number_fields(RunConfig), *number_fields(PlanConfig)]


def test_there_are_many_numbers() -> None:
    assert len(FIELDS) > 50


@pytest.mark.parametrize(("name", "kind", "field"), FIELDS, ids=[name for name, _, _ in FIELDS])
def test_every_number_of_a_config_has_two_bounds(name: str, kind: type, field: dataclasses.Field[object]) -> None:
    read = reader(kind, field.metadata["check"])
    for text in HUGE:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            read(text)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    default = field.default if field.default is not dataclasses.MISSING else None
    assert default is None or read(str(default)) == default


def test_a_range_says_all_of_itself() -> None:
    assert Range(least=1, most=1 << 20)(0) == "must be at least 1 and at most 1,048,576"
    assert Range(above=0, below=1)(1) == "must be above 0 and below 1"
    assert [Range(above=0, most=1)(value) for value in (0.5, 1.0, 1)] == ["", "", ""]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; is a variable unset?"),
        ("s3://bucket/run", "is an address"),
        ("gs:/bucket", "is an address"),
        ("~/runs", "starts with ~"),
        ("a\0b", "NUL"),
        ("a\udcff", "not UTF-8"),
        ("runs/" + "x" * 256, "has a name of 256 bytes"),
        ("ä" * 128, "has a name of 256 bytes"),
        ("/".join(["x" * 100] * 42), "a path may have 4095"),
    ],
)
def test_what_no_path_is(text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=says.replace("?", r"\?")):
        path(text)


@pytest.mark.parametrize("text", ["a", "./~", "C:x", "a b", "x" * 255, "ä", "/a/../b", "a:b/c", "-x"])
def test_what_a_path_may_be(text: str) -> None:
    assert str(path(text)) == text.removeprefix("./")


def test_arguments_that_are_declared_one_by_one() -> None:
    assert whole_number(least=1)("7") == 7 and number(above=0, most=1)("1") == 1.0 and word("a b") == "a b"
    for read, text in (
        (whole_number(least=1), "0"),
        (number(above=0), "0"),
        (number(), "nan"),
        (number(), "-inf"),
        (word, ""),
    ):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)
