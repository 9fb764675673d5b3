"""The command line of every program: what is wrong with it is one sentence, a ConfigError."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from .error import ConfigError
from .limits import shown, text_problem


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, but for its errors; flags are written out, and `parse` has the nearest name of an unknown one."""

    def __init__(self, **options: object) -> None:
        # Of 3.9 to 3.14, no version names every option alike, and none of them is of interest here.
        options = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter} | options
        super().__init__(**options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError; "argument --lr: 'x' is not a number" loses its first word."""
        match = re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL)
        if match is None:
            raise ConfigError(message)
        flag, problem = match[1].split("/")[-1], match[2]
        # What begins with a number or a verb continues a sentence; all else stands alone.
        raise ConfigError(f"{flag} {problem}" if re.match(r"[-+.\d]|is empty", problem) else f"{flag}: {problem}")

    def parse(
        self, arguments: Sequence[str] | None = None, *, other_names: Mapping[str, str] | None = None
    ) -> argparse.Namespace:
        """The values of `arguments` (default: the command line); `other_names` says what to give instead of flags
        that other programs have.

        Raises:
            ConfigError: a flag that there is not, one that is missing, or a value that cannot be.
        """
        words = list(sys.argv[1:] if arguments is None else arguments)
        for item in words:
            if problem := text_problem(item):
                raise ConfigError(f"{shown(item)} {problem}")
        values, unknown = self.parse_known_args(words)
        if unknown:
            raise ConfigError(_unknown(unknown[0], list(self._option_string_actions), other_names or {}))
        return values


def expand_files(arguments: Sequence[str], inside: tuple[Path, ...] = ()) -> list[str]:
    """The arguments with every `@FILE` replaced by the flags in that file.

    Raises:
        ConfigError: a file that is not there, cannot be read, or reads itself.
    """
    words: list[str] = []
    for argument in arguments:
        if not argument.startswith("@"):
            words.append(argument)
            continue
        path = Path(argument[1:])
        if path.resolve() in inside:
            raise ConfigError(f"the file of flags {path} reads itself; take @{path} out of {inside[-1]}")
        words += expand_files(_flags_of(path), (*inside, path.resolve()))
    return words


def _flags_of(path: Path) -> list[str]:
    if text_problem(str(path)) or not path.is_file():
        raise ConfigError(f"there is no file of flags {path}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"the file of flags {path} is not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"the file of flags {path} cannot be read: {error.strerror}") from error
    return [word for line in lines for word in split_words(line, "a file of flags")]


def split_words(line: str, where: str) -> list[str]:
    """The words of a line, as a shell would take it apart; what follows # is a comment.

    Raises:
        ConfigError: a quotation that does not end.
    """
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(f"the line {line} in {where} is wrong: {error}") from error


def _unknown(given: str, known: list[str], other_names: Mapping[str, str]) -> str:
    name = given.split("=")[0]
    if not name.startswith("-"):
        return f"{shown(given)} stands where a flag was expected; flags start with --, see --help"
    if name in other_names:
        return f"there is no flag {name}; {other_names[name]}"
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else "see --help for all flags"
    return f"there is no flag {name}; {hint}"
