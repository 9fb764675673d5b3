"""The programs in tools/, from their command lines."""

from __future__ import annotations

import subprocess

from tests.support.programs import run_program


def run_tool(name: str, *arguments: object, check: bool = True, ranks: int = 0) -> subprocess.CompletedProcess[str]:
    """Run tools/NAME.py to its end, on so many ranks."""
    return run_program(f"tools/{name}.py", *arguments, check=check, ranks=ranks)


def refusal(name: str, *arguments: object) -> str:
    """What a tool says as it refuses: exit code 2 and one line without a traceback."""
    done = run_tool(name, *arguments, check=False)
    assert done.returncode == 2, (done.returncode, done.stderr)
    said = done.stderr.strip()
    assert said.startswith(f"{name}.py: ") and "\n" not in said and "Traceback" not in said, said
    return said
