"""The papers' tables and figures from our runs, with the published values beside them.

python tools/report.py RUNS... --output DIR       RUNS: run folders, or folders that hold them
python tools/report.py --base RUN --compressed RUN --scratch RUN --output DIR

The first writes report.html, report.md and report.csv; docs/report.md says how runs are matched to the papers' cells.
The second lays a base model, its compressed form and a same-size model from scratch side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path

from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.error import ConfigError
from megatron_distill.config.escape import for_terminal
from megatron_distill.config.limits import path
from megatron_distill.config.program import run_program
from megatron_distill.report.markdown import write_markdown
from megatron_distill.report.papers import build_report
from megatron_distill.report.papers_csv import write_csv
from megatron_distill.report.papers_page import write_papers_page
from megatron_distill.report.records import find_runs, read_run
from megatron_distill.report.summary import write_summary

ROLES = ("base", "compressed", "scratch")


def main(arguments: list[str] | None = None) -> int:
    """Write the report and say where it is; returns the exit code."""
    return run_program("report.py", lambda: report(arguments))


def report(words: list[str] | None) -> int:
    """Read the runs and write the report; returns the exit code."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=path, nargs="*", help="run folders, or folders that are searched for them")
    for role in ROLES:
        parser.add_argument(f"--{role}", type=path, help=f"run folder of the {role} model")
    parser.add_argument("--output", type=path, required=True, help="folder to write to")
    arguments = vars(parser.parse(words))
    given = {role: arguments[role] for role in ROLES if arguments[role]}
    if bool(arguments["runs"]) == bool(given) or (given and len(given) < len(ROLES)):
        raise ConfigError("give either folders of runs, or all of --base, --compressed and --scratch")
    print(compare_three(given, arguments["output"]) if given else rebuild(arguments["runs"], arguments["output"]))
    return 0


def compare_three(given: dict[str, Path], output: Path) -> str:
    """Base, compressed and from scratch; what to print."""
    runs = {role: read_run(folder) for role, folder in given.items()}
    text = write_summary(output, runs)
    left_out = [for_terminal(f"left out: {note}") for run in runs.values() for note in run.notes]
    return "\n".join(["", text, "", *left_out, f"report: {for_terminal(str(output / 'report.html'))}"])


def rebuild(folders: list[Path], output: Path) -> str:
    """All of the papers; what to print."""
    report = build_report(*find_runs(folders))
    output.mkdir(parents=True, exist_ok=True)
    write_papers_page(output / "report.html", report)
    write_markdown(output / "report.md", report)
    write_csv(output / "report.csv", report.tables)
    verdicts = [f"{finding.verdict}: {finding.claim}" for finding in report.findings if finding.checks]
    left_out = [f"left out: {reason}" for reason in report.left_out]
    counts = f"{len(report.runs)} runs in the tables, {len(report.others)} others"
    lines = [*left_out, *verdicts, counts, f"report: {output / 'report.html'}"]
    return "\n".join(map(for_terminal, lines))


if __name__ == "__main__":
    sys.exit(main())
