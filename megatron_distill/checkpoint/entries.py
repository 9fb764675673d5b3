"""What lies in a run's folder under the names that a run gives: found to be of no use before the run begins.

Otherwise the first save would find it, after hours of training, or a rank would wait at a pipe for ever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from megatron_distill.config.error import ConfigError

from .manifest import step_of

_FILES = (".lock", "latest", "metrics.jsonl", "result.json", "run.json", "flags.txt", "wandb_id")
_FOLDERS = ("checkpoints", "tensorboard", "tokenizer")


def check_entries(run: Path) -> None:
    """Raise ConfigError where a run would keep a file or a folder and cannot, because of what is there."""
    wrong = [(run / name, "file", _wrong(run / name, folder=False)) for name in _FILES]
    wrong += [(run / name, "folder", _wrong(run / name, folder=True)) for name in _FOLDERS]
    if not any(problem for *_, problem in wrong):
        wrong += [(path, "checkpoint", _no_folder(path)) for path in _checkpoints(run / "checkpoints")]
    for path, kind, problem in wrong:
        if problem:
            raise ConfigError(
                f"{path} {problem}, and a run keeps a {kind} there; put that right, or give another --save folder"
            )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if step_of(path) is not None)


def _no_folder(path: Path) -> str:
    return "" if path.is_dir() else "is no folder"


def _wrong(path: Path, *, folder: bool) -> str:
    """What is wrong with what lies at `path`, "" if nothing is. A file may be a link to one that is yet to come."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if folder and path.is_symlink() else ""
    except NotADirectoryError:  # the run's folder lies below a file, which is said where it is to be made
        return ""
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if folder and not stat.S_ISDIR(mode):
        return "is no folder"
    if stat.S_ISDIR(mode) and not folder:
        return "is a folder"
    if not folder and not stat.S_ISREG(mode):
        return "is a pipe or a device"
    needed = os.R_OK | os.W_OK | (os.X_OK if folder else 0)
    return "" if os.access(path, needed) else "cannot be read and written by this user"
