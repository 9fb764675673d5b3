"""tools/generate.py, as a user starts it."""

from __future__ import annotations

from pathlib import Path

from tests.support.tools import refusal, run_tool


def test_run_and_folder_say_the_same(readable_model: Path, tmp_path: Path) -> None:
    run_tool("convert_checkpoint", "from-hf", readable_model, tmp_path / "run")
    (tmp_path / "prompts.txt").write_text("half of the\n")
    flags = ("--prompt", "the model", "--prompt-file", tmp_path / "prompts.txt", "--max-new-tokens", 12, "--seed", 4)
    said = [run_tool("generate", folder, *flags).stdout for folder in (readable_model, tmp_path / "run")]
    assert said[0] == said[1]
    assert said[0].startswith("the model") and "\nhalf of the" in said[0]
    assert run_tool("generate", readable_model, *flags, "--seed", 5).stdout != said[0]


def test_what_cannot_be_continued(base_run: Path, readable_model: Path, tmp_path: Path) -> None:
    prompt = ("--prompt", "x")
    assert "there is no checkpoint or run at" in refusal("generate", tmp_path / "none", *prompt)
    assert "records no tokenizer" in refusal("generate", base_run, *prompt)
    assert "--prompt 1 is empty" in refusal("generate", readable_model, "--prompt", "")
    assert "1 ranks are started" in refusal("generate", readable_model, *prompt, "--pipeline-model-parallel-size", 2)
