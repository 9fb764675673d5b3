"""How a program ends."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from megatron_distill.config.error import ConfigError, OutsideError
from megatron_distill.config.program import run_program, say
from tests.support.runs import ROOT


def ends(error: BaseException) -> int:
    def fail() -> int:
        raise error

    return run_program("x.py", fail)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("--lr fast is not a number"), 2, "--lr fast is not a number"),
        (ConfigError("two\nlines \x1b[31m"), 2, "two lines \\x1b[31m"),
        (OutsideError("rank 3 did not come"), 1, "rank 3 did not come"),
        (PermissionError(13, "Permission denied", "runs/a"), 2, "runs/a: Permission denied"),
        (FileNotFoundError(2, "No such file or directory", "b"), 2, "b: No such file or directory"),
        (IsADirectoryError(21, "Is a directory", "c"), 2, "c: Is a directory"),
        (OSError(36, "File name too long", "d" * 3), 2, "ddd: File name too long"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_one_sentence_and_an_exit_code(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(error) == code
    assert capsys.readouterr() == ("", f"x.py: {says}\n")


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyError("a"), RuntimeError("b"), AssertionError()])
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        ends(error)


def test_only_the_process_that_speaks_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise ConfigError("wrong")

    assert run_program("x.py", fail, speaks=lambda: False) == 2
    assert capsys.readouterr().err == ""


PROGRAM = """
import sys
from megatron_distill.config.program import run_program
def run():
    for _ in range(int(sys.argv[1])):
        print("n\\u00e4me")
    print(sys.stdin.read(), file=sys.stderr)
    return 0
sys.exit(run_program("x.py", run))
"""


def shell(redirections: str, count: int = 1, **variables: str) -> subprocess.CompletedProcess[bytes]:
    line = f'"$0" -c "$1" {count} {redirections}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}", sys.executable, PROGRAM],
        capture_output=True,
        env=environment,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_a_name_that_the_terminal_cannot_show_is_escaped() -> None:
    done = shell("", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"n\\xe4me\n")


def test_a_closed_pipe_is_a_sentence() -> None:
    done = shell("| true", 100_000)
    assert done.returncode == 1
    assert done.stderr == b"x.py: nobody reads the output any more: its pipe is closed\n"


@pytest.mark.parametrize("redirections", [">&- 2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(redirections: str) -> None:
    assert shell(redirections).returncode == 0


def test_a_full_disk_behind_the_output_is_a_sentence() -> None:
    done = shell("> /dev/full")
    assert done.returncode == 1 and done.stderr.count(b"\n") <= 2
    assert done.stderr.endswith(b"x.py: No space left on device\n")


def test_a_sentence_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    say("x.py", "wrong")
    assert not isinstance(sys.stderr, Closed)
