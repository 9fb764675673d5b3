"""What is known about a corpus beside its tokens: `PREFIX.meta.json`, written by tools/preprocess_data.py.

Megatron's `.bin` and `.idx` do not say which tokenizer made them. A corpus that another program made has no record, and
then nothing is known.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

from .whole_file import written_whole

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """Where the ids of a corpus come from."""

    tokenizer: str
    """Fingerprint of the tokenizer's vocabulary (data/tokenizer.py)."""
    vocab_size: int
    """Of that tokenizer."""
    eod_id: int | None
    """The token after each document, if one was written."""
    bos_id: int | None
    """The token before each document, if one was written."""
    num_documents: int
    num_tokens: int
    format: int = FORMAT


def record_path(prefix: str | Path) -> Path:
    """Where the record of a corpus lies."""
    return Path(f"{prefix}.meta.json")


def write_corpus_record(prefix: str | Path, record: CorpusRecord) -> None:
    """Write the record beside the corpus."""
    with written_whole(record_path(prefix)) as file:
        file.write(json.dumps(dataclasses.asdict(record), indent=1).encode() + b"\n")


def read_corpus_record(prefix: str | Path) -> CorpusRecord | None:
    """The record of a corpus, None if there is none.

    Raises:
        ConfigError: it is damaged, or of a newer format.
    """
    path = record_path(prefix)
    try:
        record = read_json(path, CorpusRecord)
    except FileNotFoundError:
        return None
    if record.format != FORMAT:
        raise ConfigError(f"{path} has format {record.format}; this version reads {FORMAT}")
    return record


def recorded_eod(prefixes: Sequence[str]) -> int | None:
    """The token that ends the documents of these corpora; None if none of them has a record.

    Raises:
        ConfigError: a corpus without end tokens, or corpora that have others.
    """
    found = {prefix: record.eod_id for prefix in prefixes if (record := read_corpus_record(prefix)) is not None}
    without = next((prefix for prefix, eod in found.items() if eod is None), None)
    if without is not None:
        raise ConfigError(f"{without} was made with --no-append-eod, so no token ends its documents; give --eod-token")
    if len(set(found.values())) > 1:
        ends = ", ".join(f"{prefix} with {eod}" for prefix, eod in found.items())
        raise ConfigError(f"corpora of --data-path end their documents with different tokens: {ends}; give --eod-token")
    return next(iter(found.values()), None)
