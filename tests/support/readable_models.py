"""A small random model with a tokenizer, as a Hugging Face folder: what evaluation and generation start from."""

from __future__ import annotations

from pathlib import Path


def save_readable_model(folder: Path, tokenizer: Path) -> Path:
    """A Llama of two layers and 128 positions; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from megatron_distill.data.tokenizer import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=loaded.vocab_size,
        max_position_embeddings=128,
        initializer_range=0.4,
        bos_token_id=loaded.eod_id,
        eos_token_id=loaded.eod_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    loaded.save_huggingface(folder)
    return folder
