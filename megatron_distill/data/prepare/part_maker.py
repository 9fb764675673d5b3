"""A piece of text to a part of a corpus, on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from megatron_distill.config.error import ConfigError

from ..tokenizer import Tokenizer
from .compressed import Damaged
from .corpus import BadLine, BadText, is_blank, whole_text
from .encode import Encoder, IdsDiffer
from .forms import Form, Plain
from .frame import Frame
from .instructions import Instructions
from .parts import PartFiles, PartWriter, Recipe, Record
from .pieces import Block, Piece, read_blocks
from .places import KEPT_PLACES, Place, name_places

Report = Callable[[int, int, int, int], None]
"""Told after each block: bytes read from the disk, bytes of text, documents and tokens, all since the piece began."""


@dataclass(frozen=True)
class Job:
    """One piece to make a part of."""

    piece: Piece
    files: PartFiles
    key: str


class PartMaker:
    """Makes parts by one recipe, one after the other."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer) -> None:
        self.recipe = recipe
        self._encoder = Encoder(tokenizer)
        frame = Frame(recipe.bos, recipe.eod)
        self._form: Form = (
            Instructions(frame, recipe.max_prompt_tokens) if recipe.instructions else Plain(recipe.text_key, frame)
        )

    def make(self, job: Job, report: Report) -> Record:
        """Write the part, or nothing.

        Raises:
            ConfigError: text that cannot be read, with the file and the line.
        """
        try:
            return self._make(job, report, trust=True)
        except IdsDiffer:
            return self._make(job, report, trust=False)

    def _make(self, job: Job, report: Report, trust: bool) -> Record:
        record = Record(job.key, engine=self._encoder.begin(trust))
        with PartWriter(job.files, np.dtype(self.recipe.dtype), record) as writer:
            for rows, position in self._rows(job.piece, record):
                writer.add(self._form.documents(rows, self._encoder))
                record.num_compared = self._encoder.num_compared
                report(position, record.num_text_bytes, record.num_documents, record.num_tokens)
            job.piece.check_unchanged()
        return record

    def _rows(self, piece: Piece, record: Record) -> Iterator[tuple[list[tuple[str, ...]], int]]:
        """What is to be encoded of each block, and how far it was read."""
        if piece.path.suffix == ".txt":
            yield from self._whole_file(piece, record)
            return
        line = 0
        try:
            for block in read_blocks(piece):
                record.num_text_bytes += block.num_bytes
                yield self._rows_of(block, piece, record), block.position
                line = block.first_line + len(block.lines) - 1
        except Damaged as error:
            self._bad(Place(str(piece.path), piece.begin, line, str(error), is_after=True), record)

    def _rows_of(self, block: Block, piece: Piece, record: Record) -> list[tuple[str, ...]]:
        rows = []
        texts = self._form.texts
        for number, line in enumerate(block.lines, block.first_line):
            if is_blank(line):
                continue
            try:
                rows.append(texts(line))
            except BadLine as error:
                self._bad(Place(str(piece.path), piece.begin, number, str(error)), record)
        return rows

    def _whole_file(self, piece: Piece, record: Record) -> Iterator[tuple[list[tuple[str, ...]], int]]:
        record.num_text_bytes += piece.num_bytes
        try:
            if self.recipe.instructions:
                raise BadText("plain text; --instructions needs JSON lines", line=1)
            yield [(whole_text(piece.path),)], piece.num_bytes
        except BadText as error:
            self._bad(Place(str(piece.path), 0, error.line, str(error)), record)

    def _bad(self, place: Place, record: Record) -> None:
        """Stop, or count and go on."""
        if not self.recipe.skip_bad_lines:
            raise ConfigError(name_places([place])[0])
        record.num_skipped += 1
        if len(record.skipped) < KEPT_PLACES:
            record.skipped.append(place)
