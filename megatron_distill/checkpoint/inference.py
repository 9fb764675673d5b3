"""A trained model by its path, ready to read with: a run, one of its checkpoints, or a Hugging Face folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout

from . import tokenizer_files
from .checksum import checksum
from .generation_defaults import GenerationDefaults
from .manifest import find_checkpoint, read_manifest

if TYPE_CHECKING:
    from megatron_distill.models.build import Decoder

    from .from_hf import Source


@dataclass(frozen=True)
class StoredModel:
    """What is on disk, checked; no weights are read yet."""

    path: Path
    """As the user gave it."""
    folder: Path
    """The checkpoint, or the Hugging Face folder."""
    shape: ModelShape
    layers: tuple[int, ...]
    dtype: torch.dtype
    tokenizer: Path | None
    """A folder, or a tokenizer's file."""
    iteration: int | None
    """Optimizer steps taken; None for a Hugging Face folder."""
    fingerprint: str
    """Identity of the weights, wherever they lie: from the checksums of a checkpoint, or of the weights and config.json
    of a Hugging Face folder."""
    generation: GenerationDefaults
    """What the model it was made from says about generating text."""

    @property
    def is_run(self) -> bool:
        """Whether it is ours."""
        return self.iteration is not None


def find_model(path: Path) -> StoredModel:
    """The model at `path`.

    Raises:
        ConfigError: nothing there, an incomplete checkpoint, or a model that no family reads.
    """
    if (path / "config.json").is_file() and not os.path.lexists(path / "latest"):
        return _public(path, _source(path))
    folder = find_checkpoint(path)
    manifest = read_manifest(folder)
    kept = tokenizer_files.find_tokenizer(folder, manifest)
    tokenizer = Path(kept) if kept else None
    dtype = getattr(torch, manifest.dtype)
    generation = GenerationDefaults.from_manifest(manifest.generation)
    shape, layers, identity = manifest.shape, manifest.layers, manifest.fingerprint
    return StoredModel(path, folder, shape, layers, dtype, tokenizer, manifest.iteration, identity, generation)


def _source(path: Path) -> Source:
    from .from_hf import Source

    return Source(path)


def _public(path: Path, source: Source) -> StoredModel:
    tokenizer = path if any((path / name).is_file() for name in tokenizer_files.FILES) else None
    identity = _identity(path)
    return StoredModel(
        path, path, source.shape, source.layers, source.dtype, tokenizer, None, identity, source.generation
    )


def _identity(folder: Path) -> str:
    weights = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin") and p.is_file())
    sums = [[p.name, p.stat().st_size, checksum(p)] for p in (*weights, folder / "config.json")]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def inference_layout(stored: StoredModel, world_size: int, tensor: int, pipeline: int) -> Layout:
    """How `world_size` ranks share the model; what tensor and pipeline parallelism leave is data parallel.

    Raises:
        ConfigError: sizes that do not divide ranks, heads, vocabulary or layers.
    """
    shape = stored.shape
    if tensor < 1 or pipeline < 1 or world_size % (tensor * pipeline):
        ranks = "1 rank is" if world_size == 1 else f"{world_size} ranks are"
        raise ConfigError(
            f"{ranks} no multiple of --tensor-model-parallel-size {tensor} x "
            f"--pipeline-model-parallel-size {pipeline}; start another number of ranks or change these"
        )
    if shape.num_query_groups % tensor or shape.padded_vocab_size % tensor:
        raise ConfigError(
            f"--tensor-model-parallel-size {tensor} must divide the {shape.num_query_groups} key heads and the "
            f"{shape.padded_vocab_size} rows of the vocabulary of {stored.path}"
        )
    if pipeline > len(stored.layers):
        raise ConfigError(
            f"--pipeline-model-parallel-size {pipeline} is more than the {len(stored.layers)} layers of {stored.path}"
        )
    return Layout(tensor=tensor, pipeline=pipeline, data=world_size // (tensor * pipeline), num_microbatches=1)


def load_for_inference(
    stored: StoredModel, layout: Layout, *, dtype: torch.dtype | None = None, attention_backend: str = "sdpa"
) -> Decoder:
    """This rank's part of the model with its weights, in `dtype` (as stored, if absent). Collective over the role."""
    from megatron_distill.models.build import BuildOptions, build_decoder

    from .native import load_checkpoint
    from .verify import find_damage_together

    options = BuildOptions(dtype=stored.dtype, attention_backend=attention_backend)
    model = build_decoder(stored.shape, stored.layers, layout, options)
    if stored.is_run:
        damage = find_damage_together(stored.folder)
        if damage:
            raise ConfigError(damage)
        load_checkpoint(stored.folder, model, None)
    else:
        _fill(model, _source(stored.folder))
    return model.requires_grad_(False).to(dtype or stored.dtype)


@torch.no_grad()
def _fill(model: Decoder, source: Source) -> None:
    """Read the tensors of this rank, each whole, and keep its part of them."""
    from megatron.core import parallel_state

    rank = parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()
    for name, parameter in model.named_parameters():
        whole = source.read(model.original_name(name))
        if size > 1 and getattr(parameter, "tensor_model_parallel", False):
            whole = whole.chunk(size, dim=parameter.partition_dim)[rank]  # type: ignore[attr-defined]
        parameter.copy_(whole)


def load_tokenizer_of(stored: StoredModel, given: Path | None = None) -> Any:
    """The model's tokenizer, or the one at `given`, as transformers has it: so its first and last tokens are those that
    the export has, and a public model's those it came with.

    Raises:
        ConfigError: the model has none and none is given, or it is no tokenizer.
    """
    path = given or stored.tokenizer
    if path is None:
        raise ConfigError(f"{stored.path} records no tokenizer; give it with --tokenizer")
    return load_fitting_tokenizer(path, stored.shape.vocab_size, stored.path)


def load_fitting_tokenizer(path: Path, vocab_size: int, where: object) -> Any:
    """The tokenizer at `path` as transformers has it, for the model of `where` with `vocab_size` tokens.

    Raises:
        ConfigError: it is no tokenizer, or has tokens that the model does not know.
    """
    tokenizer = load_folder_tokenizer(path)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocab_size:
        raise ConfigError(
            f"the tokenizer {path} has the token {largest}, but {where} knows only {vocab_size} tokens; give the "
            "tokenizer that the model was trained with"
        )
    return tokenizer


def load_folder_tokenizer(path: Path) -> Any:
    """The tokenizer at `path`, a folder or a file, as transformers has it.

    Raises:
        ConfigError: it is no tokenizer.
    """
    import tempfile

    from transformers import AutoTokenizer

    from megatron_distill.data.tokenizer import load_tokenizer
    from megatron_distill.data.tokenizer import tokenizer_files as tokenizer_files_of

    folder = path if path.is_dir() else path.parent
    stands_for_folder = path.is_dir() or path == tokenizer_files_of(folder)[0]
    with tempfile.TemporaryDirectory() as made:
        if not stands_for_folder or not (folder / "tokenizer_config.json").is_file():
            load_tokenizer(path).save_huggingface(Path(made))
            folder = Path(made)
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # transformers raises what the file at fault makes it raise
            raise ConfigError(f"{path} holds no tokenizer that transformers reads: {error}") from error
