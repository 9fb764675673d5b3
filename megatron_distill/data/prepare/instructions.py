"""Prompts and responses out of instructions, for distilling on what a model is asked.

A document is two sequences in Megatron's own format: the prompt, then the response with the token that ends it.
Programs that know nothing of this read a corpus of texts; `InstructionCorpus` reads where the response begins.

The template is the one of Alpaca (Taori et al., 2023), which MiniLLM (Gu et al., 2024, arXiv:2306.08543) and DistiLLM
(Ko et al., 2024, arXiv:2402.03898) train and evaluate with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_distill.config.error import ConfigError

from ..index_file import DTYPES, StoredTables
from .corpus import BadLine, row_of, text_field
from .encode import Encoder
from .forms import Documents, as_array
from .frame import Frame

WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ADVICE = "with --instructions a line has instruction, output and, if there is one, input"


def prompt_of(row: dict[str, Any]) -> str:
    """The prompt of an instruction with or without `input`. BadLine if there is no instruction."""
    instruction = text_field(row, "instruction", ADVICE)
    given = text_field(row, "input", ADVICE) if row.get("input") else ""
    # Not str.format: braces in the instruction are text.
    template = WITH_INPUT if given else WITHOUT_INPUT
    before, after = template.split("{instruction}")
    return before + instruction + after.replace("{input}", given)


@dataclass(frozen=True)
class Instructions:
    """A document is a prompt of at most `max_prompt_tokens` tokens, its first ones, and a response; both in a frame.

    The prompt is encoded alone and with its response, and the response is what the second has more: so a model reads at
    training time the ids that it sees as it answers.
    """

    frame: Frame
    max_prompt_tokens: int

    def texts(self, line: bytes) -> tuple[str, ...]:
        """The prompt, and the prompt with the response."""
        row = row_of(line)
        prompt, response = prompt_of(row), text_field(row, "output", ADVICE)
        if not response.strip():
            raise BadLine("'output' is empty: there is nothing to learn from it")
        return prompt, prompt + response

    def documents(self, rows: Sequence[tuple[str, ...]], encoder: Encoder) -> Documents:
        """One of two sequences for each row."""
        ids = encoder.encode([text for row in rows for text in row])
        begin, end = as_array(self.frame.bos), as_array(self.frame.eod)
        found = Documents([], [], [])
        for prompt, both in zip(ids[::2], ids[1::2], strict=True):
            kept, response = prompt[: self.max_prompt_tokens - begin.size], both[prompt.size :]
            found.marks.append(len(found.lengths))
            found.tokens.extend((begin, kept, response, end))
            found.lengths.extend((begin.size + kept.size, response.size + end.size))
        return found


class InstructionCorpus:
    """Prompts and responses of a corpus that was made with `--instructions`, memory-mapped.

    Raises:
        ConfigError: no such corpus, or one of plain documents.
    """

    def __init__(self, prefix: str | Path) -> None:
        index = Path(f"{prefix}.idx")
        if not index.exists() or not Path(f"{prefix}.bin").exists():
            raise ConfigError(f"there is no {index}; make it with tools/preprocess_data.py --instructions")
        tables = StoredTables.of(index)
        lengths, marks = tables.lengths(), tables.marks()
        if lengths.size != 2 * marks.size or not np.array_equal(marks, 2 * np.arange(marks.size)):
            raise ConfigError(
                f"{prefix} has {marks.size} documents of {lengths.size} sequences, not two in each; "
                "make it with tools/preprocess_data.py --instructions"
            )
        dtype = np.dtype(DTYPES[tables.dtype_code])
        size = Path(f"{prefix}.bin").stat().st_size
        if (lengths.size and int(lengths.min()) < 0) or int(lengths.sum(dtype=np.int64)) * dtype.itemsize != size:
            raise ConfigError(
                f"{index} is damaged: its lengths are not those of the {size:,} bytes of {prefix}.bin; make both again "
                "with tools/preprocess_data.py --instructions"
            )
        self.prompt_lengths, self.response_lengths = lengths[::2], lengths[1::2]
        """Tokens of each, [documents] int32; a response's last one ends it."""
        self._starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
        self._tokens = _map_tokens(Path(f"{prefix}.bin"), dtype)

    def __len__(self) -> int:
        return self.prompt_lengths.size

    def prompt(self, document: int) -> NDArray[np.int64]:
        """Tokens of a prompt."""
        return self._sequence(2 * document)

    def response(self, document: int) -> NDArray[np.int64]:
        """Tokens of a response and its end."""
        return self._sequence(2 * document + 1)

    def _sequence(self, number: int) -> NDArray[np.int64]:
        return self._tokens[self._starts[number] : self._starts[number + 1]].astype(np.int64)


def _map_tokens(path: Path, dtype: np.dtype) -> NDArray[np.integer]:
    # numpy refuses to map a file without bytes
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)
