"""Nothing that the program did not write is removed or overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare.preprocess import Request, preprocess


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "the model is pruned"}\n')
    return path


def request(text: Path | str, bpe_file: Path, prefix: str | Path) -> Request:
    return Request(inputs=[str(text)], tokenizer=str(bpe_file), output_prefix=str(prefix), workers=1)


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


FOREIGN = {
    "a file": ["mine.txt"],
    "a file deep below": ["sub/deep/mine.txt"],
    "a file beside parts": ["lock", "000000.bin", "mine.txt"],
    "files named as parts, without a lock": ["000000.json", "000001.json"],
    "a folder named as a part": ["lock", "000000.bin/mine.txt"],
    "nearly a name": ["lock", "000000.bin.partial2"],
    "a hidden file": ["lock", ".mine"],
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_folder_with_other_files_is_refused_untouched(case: str, text: Path, bpe_file: Path, tmp_path: Path) -> None:
    for name in FOREIGN[case]:
        path = tmp_path / "corpus.parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match=r"corpus\.parts holds .*, which this program did not write there; move it"):
        preprocess(request(text, bpe_file, tmp_path / "corpus"))
    assert everything(tmp_path) == before


def test_a_link_named_as_a_part_is_refused(text: Path, bpe_file: Path, tmp_path: Path) -> None:
    parts = tmp_path / "corpus.parts"
    parts.mkdir()
    (parts / "lock").touch()
    (parts / "000000.bin").symlink_to(text)
    with pytest.raises(ConfigError, match=r"holds 000000\.bin, which"):
        preprocess(request(text, bpe_file, tmp_path / "corpus"))
    (tmp_path / "other.parts").symlink_to(parts)
    with pytest.raises(ConfigError, match=r"other\.parts is not a folder of this program"):
        preprocess(request(text, bpe_file, tmp_path / "other"))


@pytest.mark.parametrize("name", ["shard0.jsonl", "000000.json"])
def test_input_in_the_folder_is_refused(name: str, text: Path, bpe_file: Path, tmp_path: Path) -> None:
    parts = tmp_path / "corpus.parts"
    parts.mkdir()
    (parts / "lock").touch()
    text.rename(parts / name)
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match=rf"--input .*{name} lies in .*corpus\.parts, where this program"):
        preprocess(request(f"{parts}/*.json*", bpe_file, tmp_path / "corpus"))
    assert everything(tmp_path) == before


def test_an_empty_folder_is_used_and_removed(text: Path, bpe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.parts").mkdir()
    preprocess(request(text, bpe_file, tmp_path / "corpus"))
    assert sorted(everything(tmp_path)) == ["corpus.bin", "corpus.idx", "corpus.meta.json", "text.jsonl"]


def test_a_file_that_appears_meanwhile_stays(
    text: Path, bpe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron_distill.data.prepare.merge import Merge

    publish = Merge.publish

    def put(merge: Merge) -> object:
        (merge.folder / "mine.txt").write_text("mine")
        return publish(merge)

    monkeypatch.setattr(Merge, "publish", put)
    preprocess(request(text, bpe_file, tmp_path / "corpus"))
    assert (tmp_path / "corpus.parts" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["bin", "idx", "meta.json"])
@pytest.mark.parametrize("content", [b"mine", b""])
def test_files_that_are_no_corpus_are_not_replaced(
    kind: str, content: bytes, text: Path, bpe_file: Path, tmp_path: Path
) -> None:
    (tmp_path / f"corpus.{kind}").write_bytes(content)
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match=rf"corpus\.{kind} .*give another --output-prefix"):
        preprocess(request(text, bpe_file, tmp_path / "corpus"))
    assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", ["bin", "idx", "meta.json"])
def test_links_and_devices_are_not_replaced(kind: str, text: Path, bpe_file: Path, tmp_path: Path) -> None:
    path = tmp_path / f"corpus.{kind}"
    path.symlink_to(text)
    with pytest.raises(ConfigError, match="is a link or a device"):
        preprocess(request(text, bpe_file, tmp_path / "corpus"))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is a link or a device"):
        preprocess(request(text, bpe_file, tmp_path / "corpus"))


def test_an_older_corpus_is_replaced(text: Path, bpe_file: Path, tmp_path: Path) -> None:
    preprocess(request(text, bpe_file, tmp_path / "corpus"))
    before = everything(tmp_path)
    (tmp_path / "corpus.meta.json").unlink()  # as Megatron-LM's script writes it
    preprocess(request(text, bpe_file, tmp_path / "corpus"))
    assert everything(tmp_path) == before


@pytest.mark.parametrize("prefix", ["folder/", "", ".", "folder/..", "/"])
def test_a_prefix_without_a_name_is_refused(
    prefix: str, text: Path, bpe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--output-prefix .* names a folder; give a name in it"):
        preprocess(request(text, bpe_file, prefix))
    assert sorted(everything(tmp_path)) == ["text.jsonl"]
