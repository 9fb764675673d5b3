"""A Hugging Face folder as an export writes it: a random model of our family, and a tokenizer that knows some words."""

from __future__ import annotations

import random
from pathlib import Path

import tokenizers
import torch
from tokenizers.implementations import ByteLevelBPETokenizer
from transformers import CohereConfig, CohereForCausalLM, PreTrainedTokenizerFast

_SYLLABLES = ("ka", "lo", "min", "ter", "a", "ve", "shi", "on", "pra", "del", "u", "ing", "gro", "est", "na", "qui")


def words(count: int, generator: random.Random) -> str:
    """Text of invented words."""
    return " ".join("".join(generator.choices(_SYLLABLES, k=generator.randint(1, 4))) for _ in range(count))


def write_model(folder: Path, *, layers: int, hidden: int, vocab: int, positions: int = 1024) -> Path:
    """Write it; a head is 64 wide. Returns the folder."""
    config = CohereConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        vocab_size=vocab,
        max_position_embeddings=positions,
        use_qk_norm=True,
        logit_scale=1.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    CohereForCausalLM(config).save_pretrained(folder)
    trained = ByteLevelBPETokenizer()
    text = [words(50, random.Random(number)) for number in range(200)]
    trained.train_from_iterator(text, vocab_size=1000, special_tokens=["<|endoftext|>"], show_progress=False)
    inner = tokenizers.Tokenizer.from_str(trained.to_str())
    end = "<|endoftext|>"
    whole = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=end, eos_token=end, pad_token=end)
    whole.model_max_length = positions
    whole.save_pretrained(folder)
    return folder
