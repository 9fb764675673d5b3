"""No code that a file holds is executed, whoever reads the file."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_distill.checkpoint.describe import describe
from megatron_distill.checkpoint.from_hf import Source, import_model
from megatron_distill.checkpoint.huggingface import export
from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_distill.checkpoint.metadata_file import SafeReader, read_metadata_file, read_steps
from megatron_distill.checkpoint.storage import TensorReader
from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus
from tests.checkpoint.planted import KINDS, plant, reseal
from tests.support.public_models import save_public_model
from tests.support.ranks import ranks


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, made of a public model."""
    folder = tmp_path_factory.mktemp("planted")
    save_public_model("llama", folder / "public")
    import_model(folder / "public", folder / "run")
    return folder / "run"


def read_everything(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    reader = TensorReader(checkpoint)
    for name, described in read_metadata_file(checkpoint).state_dict_metadata.items():
        reader.read(name, tuple(described.size))  # type: ignore[union-attr]
    assert manifest.iteration == 0


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "inspect": lambda run, out: describe(run, verify=True),
    "to-hf": lambda run, out: export(find_checkpoint(run), read_manifest(find_checkpoint(run)), out),
    "tensors": lambda run, out: read_everything(find_checkpoint(run)),
    "steps": lambda run, out: read_steps(find_checkpoint(run)),
}
READ_BY = {".metadata": {"inspect", "to-hf", "tensors"}, "common.pt": {"inspect", "steps"}}
READ_BY |= {
    "__0_0.distcp": {"to-hf", "tensors"},
    "metadata.json": {"inspect"},
    "manifest.json": set(READERS) - {"steps"},
}
READ_BY |= {"../../latest": set(READERS)}


@pytest.mark.parametrize("kind", KINDS)
def test_planted_code_works_where_it_is_unpickled(kind: str, tmp_path: Path) -> None:
    plant(tmp_path / "file", kind, tmp_path / "marker")
    with (tmp_path / "file").open("rb") as file:
        if kind.startswith("torch"):
            torch.load(file, weights_only=False)
        else:
            try:
                pickle.load(file)
            except TypeError:  # os.system as a __setstate__ of what it then does not get
                assert kind == "attribute of a class"
    assert (tmp_path / "marker").exists() or kind == "attribute of a class"


@pytest.mark.parametrize("name", READ_BY)
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_a_run_is_executed(kind: str, name: str, imported: Path, tmp_path: Path) -> None:
    run, marker = Path(shutil.copytree(imported, tmp_path / "run")), tmp_path / "marker"
    plant(find_checkpoint(run) / name, kind, marker)
    for reader, read in READERS.items():
        if reader in READ_BY[name]:
            with pytest.raises(ConfigError) as refused:
                read(run, tmp_path / "out")
            assert "\n" not in str(refused.value)
        else:
            read(run, tmp_path / "out")
        assert not marker.exists(), reader


def test_a_reading_changes_no_class(tmp_path: Path) -> None:
    """A pickle may set attributes of the classes that it names."""
    from torch.distributed.checkpoint.metadata import TensorProperties

    before = dict(vars(TensorProperties))
    plant(tmp_path / ".metadata", "attribute of a class", tmp_path / "marker")
    with pytest.raises(ConfigError, match="is damaged, or not from this program: it asks for os.system"):
        read_metadata_file(tmp_path)
    assert dict(vars(TensorProperties)) == before


def test_an_object_in_place_of_a_tensor_is_refused(imported: Path, tmp_path: Path) -> None:
    """torch would unpickle it without any restriction."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    run = Path(shutil.copytree(imported, tmp_path / "run"))
    checkpoint = find_checkpoint(run)
    metadata = FileSystemReader(checkpoint).read_metadata()
    metadata.state_dict_metadata = dict.fromkeys(metadata.state_dict_metadata, BytesStorageMetadata())
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))
    reseal(checkpoint)
    with pytest.raises(ConfigError, match="BytesStorageMetadata"):
        SafeReader(checkpoint).read_metadata()


def test_a_tensor_outside_of_the_checkpoint_is_refused(imported: Path, tmp_path: Path) -> None:
    from torch.distributed.checkpoint import FileSystemReader

    run = Path(shutil.copytree(imported, tmp_path / "run"))
    checkpoint = find_checkpoint(run)
    metadata = FileSystemReader(checkpoint).read_metadata()
    next(iter(metadata.storage_data.values())).relative_path = "../../secret"
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ConfigError, match="a tensor is said to be in '../../secret'"):
        read_metadata_file(checkpoint)


def test_what_megatron_core_writes_is_read_as_torch_reads_it(base_run: Path) -> None:
    from torch.distributed.checkpoint import FileSystemReader

    checkpoint = find_checkpoint(base_run)
    ours, expected = read_metadata_file(checkpoint), FileSystemReader(checkpoint).read_metadata()
    assert ours.state_dict_metadata == expected.state_dict_metadata
    assert ours.storage_data == expected.storage_data
    assert read_steps(checkpoint) == 0


@ranks(1)
def test_loading_into_a_model_executes_nothing(rank: int, tmp_path: Path) -> None:
    """As resume, --load, --teacher-load, evaluate and generate do, which all call load_checkpoint."""
    from megatron_distill.checkpoint.inference import find_model, inference_layout
    from megatron_distill.checkpoint.native import load_checkpoint
    from megatron_distill.models.build import BuildOptions, build_decoder
    from tests.support.worlds import student_world

    save_public_model("llama", tmp_path / "public")
    checkpoint = import_model(tmp_path / "public", tmp_path / "run")
    stored, marker = find_model(tmp_path / "run"), tmp_path / "marker"
    with student_world():
        model = build_decoder(
            stored.shape,
            stored.layers,
            inference_layout(stored, 1, 1, 1),
            BuildOptions(dtype=stored.dtype, attention_backend="sdpa"),
        )
        load_checkpoint(checkpoint, model, None)
        for name in (".metadata", "__0_0.distcp", "metadata.json"):
            whole = (checkpoint / name).read_bytes()
            for kind in KINDS:
                plant(checkpoint / name, kind, marker)
                with pytest.raises(ConfigError):
                    load_checkpoint(checkpoint, model, None)
                assert not marker.exists(), (name, kind)
            (checkpoint / name).write_bytes(whole)
            reseal(checkpoint)
        load_checkpoint(checkpoint, model, None)


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_a_public_model_or_a_corpus_is_executed(
    kind: str, imported: Path, corpus: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    public = imported.with_name("public")
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        folder = Path(shutil.copytree(public, tmp_path / name))
        if name == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
        plant(folder / name, kind, marker)
        with pytest.raises(ConfigError):
            Source(folder)
    for suffix in (".idx", ".bin"):
        for other in (".idx", ".bin"):
            shutil.copy(f"{corpus}{other}", tmp_path / f"c{other}")
        plant(tmp_path / f"c{suffix}", kind, marker)
        with pytest.raises(ConfigError):
            IndexedCorpus(str(tmp_path / "c"))
    assert not marker.exists()
