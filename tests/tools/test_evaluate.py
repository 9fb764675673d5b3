"""tools/evaluate.py, as a user starts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.evaluation.items import write_items
from tests.support.tools import refusal, run_tool


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_items(tmp_path_factory.mktemp("data") / "items")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, readable_model: Path) -> Path:
    """The same model as a run of ours."""
    folder = tmp_path_factory.mktemp("run") / "run"
    run_tool("convert_checkpoint", "from-hf", readable_model, folder)
    return folder


def scores(path: Path) -> dict[str, float]:
    """The scores in a results file of one model."""
    (model,) = json.loads(path.read_text())["models"].values()
    return {name: score["value"] for name, score in model["scores"].items()}


def test_run_and_folder_on_any_layout_by_us_and_by_transformers(
    run: Path, readable_model: Path, data: Path, text_file: Path, tmp_path: Path
) -> None:
    ppl = ("--text", text_file, "--seq-length", 64)
    said = run_tool("evaluate", run, "--tasks", "paper13", "perplexity", "--data", data, *ppl).stdout
    found = scores(run / "evaluation.json")
    assert len(found) == 15
    assert "paper13" in said and said.endswith(f"wrote {run / 'evaluation.json'}\n")
    (entry,) = json.loads((run / "evaluation.json").read_text())["models"].values()
    assert set(entry["averages"]) == {"paper13", "paper12", "eight"}
    assert entry["scores"]["piqa"]["stderr"] is not None
    flags = ["--tasks", "paper13,perplexity", "--data", data, *ppl, "--out", tmp_path / "tp2.json"]
    done = run_tool("evaluate", readable_model, *flags, "--tensor-model-parallel-size", 2, ranks=2)
    assert done.stdout.count("paper13") == 1
    assert scores(tmp_path / "tp2.json") == pytest.approx(found, abs=1e-4, rel=1e-6)
    run_tool(
        *("evaluate", readable_model, "--tasks", "paper13", "--data", data, "--backend", "hf", "--seq-length", 64),
        *("--out", tmp_path / "hf.json"),
    )
    theirs = scores(tmp_path / "hf.json")
    assert theirs == pytest.approx({name: found[name] for name in theirs}, abs=1e-9)


def test_scores_that_are_there_can_be_kept(run: Path, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "run"
    shutil.copytree(run, model, ignore=shutil.ignore_patterns("evaluation.json"))
    flags = ("--data", data, "--limit", 3, "--keep")
    run_tool("evaluate", model, "--tasks", "piqa", *flags)
    path = model / "evaluation.json"
    content = json.loads(path.read_text())
    (entry,) = content["models"].values()
    entry["scores"]["piqa"]["value"] = 0.123  # told from a score that is taken again
    path.write_text(json.dumps(content))
    both = run_tool("evaluate", model, "--tasks", "piqa", "copa", *flags).stdout
    assert scores(path)["piqa"] == 0.123 and set(scores(path)) == {"piqa", "copa"} and "12.3" in both
    whole = next((model / "checkpoints").iterdir())
    before = path.read_bytes()
    nothing_left = run_tool("evaluate", whole, "--tasks", "piqa,copa", *flags).stdout
    assert "12.3" in nothing_left and "wrote" not in nothing_left and path.read_bytes() == before
    run_tool("evaluate", model, "--tasks", "piqa", "--data", data, "--limit", 2, "--keep")
    assert scores(path)["piqa"] in (0.0, 0.5, 1.0)  # of another number of items


def test_what_fails_is_said_and_the_rest_is_done(readable_model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    flags = ("--tasks", "piqa", "blimp_drop_argument", "perplexity", "rouge", "--data", data, "--out", out)
    done = run_tool("evaluate", readable_model, *flags, check=False)
    assert done.returncode == 2
    assert "piqa" in done.stdout
    assert list(scores(out)) == ["piqa"]
    failed = [line for line in done.stderr.splitlines() if line.startswith("evaluate.py: ")]
    assert [line.split(": ")[1] for line in failed] == ["blimp_drop_argument", "perplexity", "rouge"]
    assert "drop_argument.jsonl" in failed[0] and "--text FILE" in failed[1] and "--instructions FILE" in failed[2]
    assert "Traceback" not in done.stderr


def test_rouge(readable_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"the model {n}", "output": ["the size of the layer", "half"]} for n in range(3)]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--tasks", "rouge", "--instructions", tmp_path / "dev.jsonl", "--seeds", 10, 20)
    for name in ("a", "b"):
        run_tool("evaluate", readable_model, *flags, "--out", tmp_path / f"{name}.json")
    found = scores(tmp_path / "a.json")
    assert set(found) == {"rouge_l", "exact_match"} and 0 < found["rouge_l"] < 100
    assert scores(tmp_path / "b.json") == found


def test_models_that_are_none(base_run: Path, readable_model: Path, data: Path, tmp_path: Path) -> None:
    flags = ("--tasks", "piqa", "--data", data)
    assert "records no tokenizer; give it with --tokenizer" in refusal("evaluate", base_run, *flags)
    assert "there is no checkpoint or run at" in refusal("evaluate", tmp_path / "none", *flags)
    said = refusal("evaluate", readable_model, *flags, "--tensor-model-parallel-size", 2)
    assert "1 rank is no multiple of --tensor-model-parallel-size 2" in said
    assert "--tasks names no task" in refusal("evaluate", readable_model, "--tasks", ",")
    assert "did you mean perplexity?" in refusal("evaluate", readable_model, "--tasks", "perplexty")
    text = ("--tasks", "perplexity", "--text", data, "--limit", 5)
    assert "give --max-tokens" in refusal("evaluate", readable_model, *text)
    assert "has no config.json" in refusal("evaluate", base_run, *flags, "--backend", "hf")
