"""Every form of tokenizer x hostile texts: the ids of preprocessing are those of the tokenizer's own library."""

from __future__ import annotations

from tests.data.hostile_texts import compare_all

from .rows import Options, Row, spread, tell_progress

SECTION = "tokenizers"


def run(options: Options) -> list[Row]:
    """The comparisons of tests/data/hostile_texts.py; a row for each tokenizer."""
    options.folder.mkdir(parents=True, exist_ok=True)
    compared = compare_all(options.folder)
    rows = {name: Row(SECTION, name) for name in dict.fromkeys(one.tokenizer for one in compared)}
    for index in spread(compared, options.sample):
        one = compared[index]
        rows[one.tokenizer].counts["equal" if one.equal else "other ids"] += 1
        failure = "" if one.equal else f"{one.tokenizer} gives other ids for {one.text[:80]!r}"
        if failure:
            rows[one.tokenizer].failures.append(failure)
        tell_progress(options, SECTION, index + 1, len(compared), failure)
    return [row for row in rows.values() if row.cases]
