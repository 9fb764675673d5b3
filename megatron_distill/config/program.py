"""How a program ends: with an exit code, and with one sentence where it could not do its work."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from .error import ConfigError, OutsideError

_WRONG_PATHS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)
_WRONG_ERRNOS = {errno.ELOOP, errno.ENAMETOOLONG}
STOPPED = 130
"""Exit code after Ctrl-C, as a shell has it."""


def run_program(name: str, run: Callable[[], int], *, speaks: Callable[[], bool] = lambda: True) -> int:
    """Call `run` and return its exit code; what it could not do becomes a sentence on the standard error.

    2: a wrong input or a path that cannot be read or written; 1: another failure outside the program, such as a full
    disk or output that nobody reads; 130: Ctrl-C. Other exceptions are faults of the program and keep their traceback.

    Args:
        name: what the sentence begins with.
        speaks: whether this process is the one of its job that says a wrong input.
    """
    _open_streams()
    try:
        code = run()
        sys.stdout.flush()
        return code
    except ConfigError as error:
        return _end(name, str(error), 2, speaks=speaks())
    except OutsideError as error:
        return _end(name, str(error), 1)
    except KeyboardInterrupt:
        return _end(name, "stopped", STOPPED)
    except BrokenPipeError:
        # The interpreter flushes once more as it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _end(name, "nobody reads the output any more: its pipe is closed", 1)
    except OSError as error:
        wrong = isinstance(error, _WRONG_PATHS) or error.errno in _WRONG_ERRNOS
        return _end(name, _in_words(error), 2 if wrong else 1)


def say(name: str, sentence: str) -> None:
    """Print a sentence on one line of the standard error, after the program's name."""
    text = "".join(c if c.isprintable() else " " if c in "\n\r\t" else f"\\x{ord(c):02x}" for c in sentence.strip())
    try:
        print(f"{name}: {text}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads that either; the exit code says enough
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _end(name: str, sentence: str, code: int, *, speaks: bool = True) -> int:
    if speaks:
        say(name, sentence)
    return code


def _in_words(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{names}: {error.strerror}" if names else error.strerror


def _open_streams() -> None:
    """Make the standard streams usable: closed ones go nowhere, and names that a terminal cannot show are escaped."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number is taken: where the stream is closed, no file of the program gets its number.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
