"""A SentencePiece model as the `tokenizers` library says it, so that transformers gives the same ids.

What cannot be carried over: which of several equally good ways to cut a text a unigram model takes, and spaces next to
user-defined pieces.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_distill.config.error import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNIGRAM, BPE = 1, 2
"""Values of a model's `trainer_spec.model_type`."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Values of a piece's `type`."""


def to_tokenizers(path: Path) -> Tokenizer:
    """The tokenizer of a `.model` file.

    Raises:
        ConfigError: a model that is neither BPE nor unigram.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    proto = read_model(path)
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == UNKNOWN)
    fallback = proto.trainer_spec.byte_fallback
    kind = proto.trainer_spec.model_type
    if kind == UNIGRAM:
        scored = [(piece.piece, piece.score) for piece in proto.pieces]
        model: Any = models.Unigram(scored, unk_id=unknown, byte_fallback=fallback)
    elif kind == BPE:
        model = models.BPE(
            {piece.piece: i for i, piece in enumerate(proto.pieces)},
            _merges(proto),
            unk_token=proto.pieces[unknown].piece,
            fuse_unk=True,
            byte_fallback=fallback,
        )
    else:
        raise ConfigError(f"{path} is neither a BPE nor a unigram model, and transformers knows no other kind")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(proto.normalizer_spec)
    prefix = [decoders.Strip(" ", 1, 0)] if proto.normalizer_spec.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *prefix]
    )
    special = (UNKNOWN, CONTROL)
    tokenizer.add_tokens([AddedToken(p.piece, normalized=False) for p in proto.pieces if p.type == USER_DEFINED])
    tokenizer.add_special_tokens([AddedToken(p.piece, normalized=False) for p in proto.pieces if p.type in special])
    return tokenizer


def read_model(path: Path) -> Any:
    """The protocol buffer of a `.model` file that SentencePiece has loaded."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(path.read_bytes())
    return proto


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, the best score first: what SentencePiece tries."""
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == NORMAL}
    merges = []
    for piece in sorted(scores, key=scores.__getitem__, reverse=True):
        halves = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        merges += [(left, right) for left, right in halves if left in scores and right in scores]
    return merges


def _character_map(spec: Any) -> list[Any]:
    """The map from characters to characters, which tokenizers applies to whole graphemes.

    So it does not join letters with marks, jamo with jamo and half-width kana with their voice marks, as SentencePiece
    does; NFC, before and after, does. Marks that Unicode joins with no letter may still be lost behind a character that
    the map knows.
    """
    from tokenizers import normalizers

    composed = [normalizers.NFC()] if "nfkc" in spec.name else []
    return [*composed, normalizers.Precompiled(spec.precompiled_charsmap), *composed]


def _normalizer(spec: Any) -> Any:
    """SentencePiece's own steps, in its order."""
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps += _character_map(spec)
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
