"""Ways in which the folder of a public Llama with a tokenizer can be damaged or wrong, one function each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

NESTED = "[" * 100_000
"""JSON that exhausts the stack of a reader in Python."""
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def corruptions() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Name and damage; each is refused or, where a library reads the file as before, changes nothing."""
    for file in FILES:
        yield f"{file} cut", partial(_cut, file)
        yield f"{file} empty", partial(_write, file, "")
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        yield f"{file} nested", partial(_write, file, NESTED)
        yield f"{file} a list", partial(_write, file, "[]")
    for name, value in CONFIG.items():
        yield f"config.json {name}", partial(edit_json, file="config.json", values=value)
    for name, value in GENERATION.items():
        yield f"generation_config.json {name}", partial(edit_json, file="generation_config.json", values=value)
    yield "pytorch_model.bin empty", partial(_instead, "pytorch_model.bin", "")
    yield "index nested", partial(_instead, "model.safetensors.index.json", NESTED)
    yield "index of numbers", partial(_instead, "model.safetensors.index.json", '{"weight_map": {"a": 1}}')
    yield "index of nothing", partial(_instead, "model.safetensors.index.json", '{"metadata": {}}')
    yield "more tokens", _more_tokens


CONFIG = {
    "use_cache null": {"use_cache": None},
    "rms_norm_eps null": {"rms_norm_eps": None},
    "attention_bias null": {"attention_bias": None},
    "max_position_embeddings null": {"max_position_embeddings": None},
    "tie_word_embeddings null": {"tie_word_embeddings": None},
    "rope_parameters a number": {"rope_parameters": 5},
    "rope_scaling a list": {"rope_scaling": [1]},
    "many layers": {"num_hidden_layers": 10**9},
    "too many layers to count": {"num_hidden_layers": 10**12},
    "a wide model": {"hidden_size": 10**12},
    "a large vocabulary": {"vocab_size": 10**15},
    "quantised": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "end token a text": {"eos_token_id": "</s>"},
    "model_type a number": {"model_type": 4},
}
GENERATION = {
    "end token a text": {"eos_token_id": "</s>"},
    "temperature a text": {"temperature": "hot"},
    "do_sample a number": {"do_sample": 3.5},
}


def edit_json(folder: Path, file: str, values: dict[str, object]) -> None:
    """Replace values of a file."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _cut(file: str, folder: Path) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])


def _write(file: str, content: str, folder: Path) -> None:
    (folder / file).write_text(content)


def _instead(file: str, content: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    _write(file, content, folder)


def _more_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    known = {token["id"] for token in content["added_tokens"]} | set(content["model"]["vocab"].values())
    last = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append({"id": max(known) + 1, "content": "<|more|>"} | last)
    path.write_text(json.dumps(content))
