"""Names that come from outside, such as those of folders, made harmless where they are shown."""

from __future__ import annotations

import html
import re

_MARKDOWN = re.compile(r"([\\`|\[\]])")


def for_terminal(text: str) -> str:
    """A text on one line in which nothing moves a cursor or changes a colour: what does not print is escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def for_markdown(text: str) -> str:
    """A text inside a paragraph or a table cell that means nothing but itself: no HTML, no link, no further cell."""
    return _MARKDOWN.sub(r"\\\1", html.escape(for_terminal(text), quote=False))


def _escaped(c: str) -> str:
    if c in "\n\r\t":
        return " "
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
