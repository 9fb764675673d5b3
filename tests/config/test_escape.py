"""Names from outside where they are shown."""

from __future__ import annotations

import pytest

from megatron_distill.config.escape import for_markdown, for_terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("runs/größe 1", "runs/größe 1"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r\tand a tab", "two lines  and a tab"),
        ("caf\udce9", "caf\\udce9"),
        ("\u202egnp", "\\u202egnp"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_on_a_terminal(text: str, shown: str) -> None:
    assert for_terminal(text) == shown
    assert for_terminal(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("runs/size_1", "runs/size_1"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("a|b", "a\\|b"),
        ("[click](http://x)", "\\[click\\](http://x)"),
        ("`code`\n# title", "\\`code\\` # title"),
        ("\\|", "\\\\\\|"),
    ],
)
def test_in_markdown(text: str, shown: str) -> None:
    assert for_markdown(text) == shown
