"""The one error a user can cause."""

from __future__ import annotations


class ConfigError(ValueError):
    """A wrong input: one sentence that says what was given, what is allowed and what to do. Exit code 2."""
