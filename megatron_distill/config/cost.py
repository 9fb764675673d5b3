"""Parameters and FLOPs, as plain arithmetic: the papers' way of counting, and the whole truth."""

from __future__ import annotations

from typing import Literal


def palm_parameters(
    num_layers: int,
    hidden_size: int,
    ffn_hidden_size: int,
    num_attention_heads: int,
    padded_vocab_size: int,
    *,
    bias: bool,
    qk_norm: Literal["per-head", "full"],
) -> int:
    """Every parameter of a PaLM decoder, the tied embedding table once.

    With biases, full-width QK-LayerNorm, ffn = 2 hidden and 50,304 rows this is L(10d^2 + 14d) + 50304d + 2d, the
    published sizes of arXiv:2305.14864.
    """
    per_norm = 2 if bias else 1
    qk_width = hidden_size if qk_norm == "full" else hidden_size // num_attention_heads
    layer = matmul_parameters(1, hidden_size, ffn_hidden_size) + per_norm * (hidden_size + 2 * qk_width)
    if bias:
        layer += 3 * hidden_size + 2 * ffn_hidden_size + hidden_size
    return num_layers * layer + padded_vocab_size * hidden_size + per_norm * hidden_size


def matmul_parameters(num_layers: int, hidden_size: int, ffn_hidden_size: int) -> int:
    """Entries of the two fused projections of all layers."""
    d, f = hidden_size, ffn_hidden_size
    return num_layers * (d * (3 * d + 2 * f) + (d + f) * d)


def paper_flops(student_parameters: int, tokens: float, teacher_parameters: int = 0) -> float:
    """(6 N_student + 2 N_teacher) D, with every parameter counted and attention not (arXiv:2305.14864, Table 4)."""
    return (6.0 * student_parameters + 2.0 * teacher_parameters) * tokens


def true_flops_per_token(
    num_layers: int, hidden_size: int, ffn_hidden_size: int, padded_vocab_size: int, seq_length: int
) -> float:
    """FLOPs of forward and backward for one token.

    Two for each multiply-add and twice the forward for the backward: 6 an entry of every matrix the token is
    multiplied with (the output projection counts, looking up an embedding does not). Attention: scores and values are
    a multiply-add for each of `hidden_size` features and each visible position, on average (seq_length + 1) / 2.
    """
    matrices = matmul_parameters(num_layers, hidden_size, ffn_hidden_size) + padded_vocab_size * hidden_size
    attention = num_layers * 2 * hidden_size * (seq_length + 1) / 2
    return 6.0 * (matrices + attention)
