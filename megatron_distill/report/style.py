"""What all pages look like, in light and in dark; nothing is fetched."""

from __future__ import annotations

import html

_LIGHT = {
    "ink": "#111827",
    "soft": "#4b5563",
    "faint": "#6b7280",
    "axis": "#9ca3af",
    "line": "#e5e7eb",
    "paper": "#ffffff",
    "card": "#f9fafb",
    "good": "#047857",
    "bad": "#b91c1c",
    "level": "#a16207",
    "series-0": "#0f766e",
    "series-1": "#c2410c",
    "series-2": "#4338ca",
    "series-3": "#a16207",
    "series-4": "#be185d",
    "series-5": "#475569",
}
_DARK = {
    "ink": "#f3f4f6",
    "soft": "#c3c9d3",
    "faint": "#9ca3af",
    "axis": "#6b7280",
    "line": "#374151",
    "paper": "#111827",
    "card": "#1a2233",
    "good": "#34d399",
    "bad": "#f87171",
    "level": "#fbbf24",
    "series-0": "#2dd4bf",
    "series-1": "#fb923c",
    "series-2": "#a5b4fc",
    "series-3": "#fde047",
    "series-4": "#f472b6",
    "series-5": "#cbd5e1",
}


def _variables(theme: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in theme.items())


COLOURS = f"""
:root {{ color-scheme: light dark; {_variables(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(_DARK)} }} }}
"""
"""Variables of both themes, for a page or for a drawing that stands alone."""

_STYLE = (
    COLOURS
    + """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: var(--width, 860px); padding: 40px 20px 80px; background: var(--paper);
  color: var(--ink); font: 16px/1.6 system-ui, sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 12px; }
h2 { font-size: 17px; margin: 36px 0 10px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: 14px; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 0; padding: 8px; }
figure svg { width: 100%; height: auto; display: block; }
details { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; margin: 8px 0;
  background: var(--card); }
summary { cursor: pointer; }
pre { overflow-x: auto; font-size: 13px; line-height: 1.45; }
footer { color: var(--soft); font-size: 14px; margin-top: 40px; }
"""
)


def document(title: str, body: str, style: str = "") -> str:
    """A whole page; `style` is added to what all pages have."""
    return "\n".join(
        (
            "<!doctype html><html lang=en><head><meta charset=utf-8>",
            "<meta name=viewport content='width=device-width, initial-scale=1'>",
            f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body>",
            body,
            "</body></html>\n",
        )
    )
