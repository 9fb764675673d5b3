"""Whether a corpus may be written under a name: nothing that is not a corpus is ever replaced by one."""

from __future__ import annotations

from pathlib import Path

from megatron_distill.config.error import ConfigError

from ..corpus_record import read_corpus_record, record_path
from ..index_file import MAGIC


def check_output(prefix: str, *, unfinished: bool) -> None:
    """Nothing, if the files of a corpus `prefix` do not exist or are those of an older corpus.

    With `unfinished`, a run was killed while it replaced them, and tokens may be there without an index.

    Raises:
        ConfigError: they are something else.
    """
    if prefix.endswith(("/", "/.", "/..")) or prefix in ("", ".", ".."):
        raise ConfigError(f"--output-prefix {prefix!r} names a folder; give a name in it, such as FOLDER/text")
    tokens, index = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    for path in (tokens, index, record_path(prefix)):
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; give another --output-prefix")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ConfigError(f"{path} is a link or a device, and no corpus replaces it; give another --output-prefix")
    if index.exists() and not _is_index(index):
        raise ConfigError(f"{index} is no index of a corpus and is not replaced; give another --output-prefix")
    if tokens.exists() and not index.exists() and not unfinished:
        raise ConfigError(
            f"{tokens} has no {index.name} beside it, so it is no corpus and is not replaced; move it, or give another "
            "--output-prefix"
        )
    try:
        if record_path(prefix).exists():
            read_corpus_record(prefix)
    except ConfigError as error:
        raise ConfigError(f"{error}; move it, or give another --output-prefix") from error


def _is_index(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; give another --output-prefix") from error
