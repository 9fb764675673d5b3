"""What a run has made, summed over its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .parts import Record
from .places import name_places


@dataclass(frozen=True)
class Outcome:
    """What was made."""

    num_documents: int
    num_tokens: int
    num_compared: int
    """Texts whose ids two libraries agreed on."""
    engines: dict[str, int]
    """Parts by `parts.Record.engine`."""
    num_skipped: int
    skipped: list[str]
    """The first places that were left out."""
    frame: str
    """The tokens around each document, in words."""

    @classmethod
    def of(cls, records: Sequence[Record], frame: str = "") -> Outcome:
        """The sum of parts."""
        return cls(
            num_documents=sum(record.num_documents for record in records),
            num_tokens=sum(record.num_tokens for record in records),
            num_compared=sum(record.num_compared for record in records),
            engines=dict(Counter(record.engine for record in records)),
            num_skipped=sum(record.num_skipped for record in records),
            skipped=name_places(place for record in records for place in record.skipped),
            frame=frame,
        )
