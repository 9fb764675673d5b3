"""Ranks that were not started alike: told by name on every node before the first step, and none of them waits."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.support.cluster import forked
from tests.support.corpora import write_corpus
from tests.support.runs import MODEL, SMALL


def flags(corpus: object, run: object, *more: object) -> list[object]:
    """A run of 4 steps."""
    return [*MODEL, *SMALL, "--data-path", corpus, "--save", run, "--train-iters", 4, "--save-interval", 2, *more]


def sentences(said: str) -> list[str]:
    """What the program reported, without the name of the machine."""
    import socket

    told = [line for line in said.splitlines() if line.startswith("pretrain_distill.py: ")]
    assert "Traceback" not in said
    return [line.removeprefix("pretrain_distill.py: ").replace(f" on {socket.gethostname()}", "") for line in told]


def test_other_flags(corpus: Path, tmp_path: Path) -> None:
    codes, said = forked(*flags(corpus, tmp_path / "run"), ranks=2, own_flags={1: ["--lr", "1e-4", "--seed", 5]})
    assert codes == [2, 2]
    named = "rank 1 has --seed 5 and --lr 0.0001, rank 0 has --seed 1234 and --lr 0.003"
    assert sentences(said) == [f"{named}; all ranks must start with the same flags, data and code"]
    assert not (tmp_path / "run" / "checkpoints").exists()


def nodes(tmp_path: Path, corpus: Path) -> dict[int, Path]:
    """Folders of two nodes; each has the corpus `c`."""
    folders = {rank: tmp_path / f"node{rank}" for rank in (0, 1)}
    for folder in folders.values():
        folder.mkdir()
        for kind in ("bin", "idx"):
            shutil.copy(f"{corpus}.{kind}", folder / f"c.{kind}")
    return folders


def test_data_of_the_same_size_with_other_content(corpus: Path, tmp_path: Path) -> None:
    folders = nodes(tmp_path, corpus)
    content = bytearray((folders[1] / "c.bin").read_bytes())
    content[4000] ^= 1
    (folders[1] / "c.bin").write_bytes(content)
    codes, said = forked(*flags("c", tmp_path / "run"), ranks=2, own_folder=folders)
    assert codes == [2, 2]
    assert len(sentences(said)) == 2, said  # on each node
    assert all(line.startswith("rank 1 has --data-path [.bin of ") for line in sentences(said))


def test_data_that_one_node_lacks(corpus: Path, tmp_path: Path) -> None:
    """The rank that fails alone says why, and so does the other node; nobody waits for the time-out."""
    folders = nodes(tmp_path, corpus)
    (folders[1] / "c.bin").unlink()
    begun = time.monotonic()
    codes, said = forked(*flags("c", tmp_path / "run"), ranks=2, own_folder=folders)
    assert codes == [2, 2]
    why = "there is no file c.bin; a corpus c is made by tools/preprocess_data.py"
    assert sorted(sentences(said)) == [f"rank 1: {why}", why]
    assert time.monotonic() - begun < 60


def test_a_run_folder_that_nodes_do_not_share(corpus: Path, tmp_path: Path) -> None:
    folders = nodes(tmp_path, corpus)
    codes, said = forked(*flags("c", "run", "--pipeline-model-parallel-size", 2), ranks=2, own_folder=folders)
    assert codes == [2, 2]
    why = "rank 1: --save run is not the folder that rank 0 writes to: a file that rank 0 has just written is not here;"
    assert [line.startswith(why) for line in sentences(said)] == [True, True], said
    assert sorted(p.name for p in (folders[0] / "run").iterdir()) == [".lock"]


def test_another_newest_checkpoint(corpus: Path, tmp_path: Path) -> None:
    folders = nodes(tmp_path, corpus)
    assert forked(*flags("c", folders[0] / "run", "--data-path", corpus, "--exit-interval", 2))[0] == [0]
    codes, said = forked(*flags("c", "run"), ranks=2, own_folder=folders)
    assert codes == [2, 2]
    for line in sentences(said):
        assert line.startswith("rank 1 has the newest checkpoint of --save none, rank 0 has the newest checkpoint of ")
        assert "iter_0000002" in line
    assert len(sentences(said)) == 2


def test_a_finished_run_that_one_node_does_not_see(corpus: Path, tmp_path: Path) -> None:
    folders = nodes(tmp_path, corpus)
    assert forked(*flags(corpus, folders[0] / "run"))[0] == [0]
    codes, said = forked(*flags("c", "run"), ranks=2, own_folder=folders)
    assert codes == [2, 2], said
    shutil.copytree(folders[0] / "run", folders[1] / "run")
    codes, said = forked(*flags("c", "run"), ranks=2, own_folder=folders)
    assert (codes, said) == ([0, 0], "run is finished, all of its 4 steps are taken\n")


def test_each_node_may_have_its_own_path_to_the_same_data(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "copy")
    own = {1: ["--data-path", tmp_path / "copy"]}
    codes, said = forked(*flags(corpus, tmp_path / "run"), ranks=2, own_flags=own)
    assert codes == [0, 0], said
    assert not list((tmp_path / "run").glob(".seen*"))
