"""The lines of a run's metrics.jsonl, as a run that resumes finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import parse_json, set_aside
from megatron_distill.data.whole_file import write_whole


@dataclass(frozen=True)
class _Line:
    """What counts of a line of metrics.jsonl."""

    iteration: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    kind: str


def cut_after(path: Path, iteration: int, validated_at: int | None) -> str:
    """Drop lines of steps that a crash made the run forget, and those that are damaged; returns a sentence about these,
    or about a file that has no line left of the steps before, empty if there is nothing to say.

    A checkpoint at a removal is from before it: the removal happens again, and what was said since then as well. So
    does a validation of its step that the checkpoint does not know. The last line may be one that a crash cut in two.
    """
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to nothing; it is now {set_aside(path)}"
    if not path.exists():
        return ""
    kept: list[bytes] = []
    damaged: list[int] = []
    content = path.read_bytes()
    lines = content.splitlines()
    crashed = 0 if content.endswith(b"\n") else len(lines)
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line, _Line, f"{path}, line {number}")
        except ConfigError:
            damaged += [number] if number != crashed else []
            continue
        again = row.kind == "removal" or (row.kind == "valid" and validated_at != iteration)
        if row.iteration > iteration or (row.iteration == iteration and again):
            break
        kept.append(line)
    write_whole(path, b"".join(line + b"\n" for line in kept))
    if damaged:
        return f"{path}: {len(damaged)} damaged lines are left out, the first is line {damaged[0]}"
    return f"{path} has no line of the {iteration} steps before" if iteration > 0 and not kept else ""
