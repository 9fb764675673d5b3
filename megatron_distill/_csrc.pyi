"""The C++ extension (csrc/bindings.cpp)."""

from collections.abc import Sequence

from numpy import float32, int32, int64, uint16
from numpy.typing import NDArray

class IndexedCorpus:
    num_tokens: int
    num_documents: int
    num_sequences: int
    dtype_code: int
    def __init__(self, prefix: bytes) -> None: ...
    def document_start(self, document: int) -> int: ...
    def sequence_start(self, sequence: int) -> int: ...
    def tokens_of_sequences(self, first: int, end: int) -> int: ...
    def max_token(self) -> int: ...
    def windows(self, starts: NDArray[int64], length: int) -> NDArray[int64]: ...

class StreamOrder:
    def __init__(self, size: int, key: int) -> None: ...
    def at(self, positions: NDArray[int64]) -> NDArray[int64]: ...

class SampleSource:
    num_samples: int
    seq_length: int
    def assemble(
        self,
        positions: Sequence[int],
        tokens: NDArray[int64],
        labels: NDArray[int64],
        loss_mask: NDArray[float32] | None,
        position_ids: NDArray[int64] | None,
        *,
        eod: int = -1,
        reset_position_ids: bool = False,
        eod_mask_loss: bool = False,
    ) -> None: ...
    def pack(self, positions: Sequence[int], block: NDArray[uint16] | NDArray[int32]) -> None: ...

class StreamSource(SampleSource):
    def __init__(
        self,
        corpus: IndexedCorpus,
        *,
        first: int,
        num_tokens: int,
        seq_length: int,
        vocab_size: int,
        seed: int,
        shuffle: bool,
        random_offset: bool,
    ) -> None: ...
    def numbers(self, positions: Sequence[int]) -> NDArray[int64]: ...

class DocumentSource(SampleSource):
    def __init__(
        self,
        corpus: IndexedCorpus,
        *,
        first: int,
        end: int,
        seq_length: int,
        vocab_size: int,
        num_samples: int,
        seed: int,
    ) -> None: ...

class Blend(SampleSource):
    def picks(self, positions: Sequence[int]) -> NDArray[int64]: ...

class WeightedBlend(Blend):
    def __init__(self, sources: Sequence[SampleSource], weights: Sequence[int]) -> None: ...

class GreedyBlend(Blend):
    def __init__(self, sources: Sequence[SampleSource], weights: Sequence[float], size: int) -> None: ...
