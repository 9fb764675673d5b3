"""Run sections of the audit, and print a line for each subject; exit code 1 where something fails.

python -m tests.audit                       all sections
python -m tests.audit corruptions --json    one of them, a JSON object a line
python -m tests.audit --sample 50           50 cases of each section
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from .rows import Options, json_line, table
from .sections import SECTIONS


def main() -> int:
    """Run, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all if absent")
    parser.add_argument("--sample", type=int, help="cases of each section; all if absent")
    parser.add_argument("--subject", default="", help="of corruptions, only subjects that begin so")
    parser.add_argument("--workers", type=int, default=2, help="cases at once")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--progress", action="store_true", help="print on stderr how far it is, and failures at once")
    parser.add_argument("--folder", type=Path, help="where folders are made; a disk in memory is fastest")
    flags = parser.parse_args()
    if unknown := set(flags.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    in_memory = Path("/dev/shm")
    folder = flags.folder or (in_memory if in_memory.is_dir() else None)
    failed = False
    with tempfile.TemporaryDirectory(dir=folder) as made:
        options = Options(Path(made), flags.sample, flags.workers, flags.subject, flags.progress)
        for name in flags.sections or SECTIONS:
            begun = time.monotonic()
            rows = SECTIONS[name](replace(options, folder=options.folder / name))
            print("\n".join(map(json_line, rows)) if flags.json else table(rows))
            seconds, cases = time.monotonic() - begun, sum(row.cases for row in rows)
            print(f"{name}: {cases:,} cases in {seconds:,.0f} s, {cases / seconds:.1f} a second", file=sys.stderr)
            failed = failed or any(row.failures for row in rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
