"""The programs in tools/, as a user starts them."""

from __future__ import annotations

import subprocess
import sys

from tests.support.runs import ROOT, environment


def run_tool(name: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run tools/NAME.py to its end."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def refusal(name: str, *arguments: object) -> str:
    """What a tool says as it refuses: exit code 2 and one line without a traceback."""
    done = run_tool(name, *arguments, check=False)
    assert done.returncode == 2, (done.returncode, done.stderr)
    said = done.stderr.strip()
    assert said.startswith(f"{name}.py: ") and "\n" not in said and "Traceback" not in said, said
    return said
