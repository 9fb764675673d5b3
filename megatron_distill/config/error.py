"""The errors that end a program with one sentence instead of a traceback."""

from __future__ import annotations


class ConfigError(ValueError):
    """A wrong input: one sentence that says what was given, what is allowed and what to do. Exit code 2."""


class OutsideError(RuntimeError):
    """Something outside the program failed, such as a peer: one sentence. Exit code 1."""
