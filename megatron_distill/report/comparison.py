"""Groups of equal runs with different seeds, a line each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from .records import RunRecord
from .summary import as_text


def compare(groups: Mapping[str, Sequence[RunRecord]]) -> str:
    """A table: mean and standard deviation of the perplexity over the runs of a group, their mean time, and of one
    parameters, tokens, true FLOPs, and FLOPs as the papers count."""
    rows: list[tuple[str, ...]] = [("run", "seeds", "parameters", "tokens", "FLOPs", "paper FLOPs", "s", "perplexity")]
    for name, runs in groups.items():
        first, perplexities = runs[0].result, [run.result["perplexity"] for run in runs]
        spread = f" ± {statistics.stdev(perplexities):.2f}" if len(runs) > 1 else ""
        seconds = statistics.mean(run.result["seconds"] for run in runs)
        rows.append(
            (
                name,
                str(len(runs)),
                f"{first['parameters']:,}",
                f"{first['tokens']:,}",
                f"{first['flops']:.3g}",
                f"{first['paper_flops']:.3g}",
                f"{seconds:,.0f}",
                f"{statistics.mean(perplexities):,.2f}{spread}",
            )
        )
    return as_text(rows)
