"""transformers says what we say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.runs import MODEL, ROOT, SMALL, environment, result, start
from tests.support.tools import run_tool


def convert(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_tool("convert_checkpoint", *arguments, check=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.jsonl").write_text(json.dumps({"text": "to be or not to be, that is the question " * 50}) + "\n")
    run_tool(
        "train_tokenizer", "--input", folder / "text.jsonl", "--vocab-size", 320, "--output", folder / "tokenizer.json"
    )
    return folder / "tokenizer.json"


@pytest.mark.parametrize("ranks", [0, 4])
def test_logits_of_a_pruned_model_are_equal(ranks: int, corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    layout = ["--tensor-model-parallel-size", 2, "--pipeline-model-parallel-size", 2] if ranks else []
    start(
        *(*MODEL, "--vocab-size", 300, *SMALL, "--num-layers", 6, "--data-path", corpus, "--tokenizer", tokenizer),
        *("--train-iters", 6, "--pruning-layout", "1,3", "--pruning-seed-tokens", 256, "--save", tmp_path / "run"),
        *layout,
        ranks=ranks,
    )
    done = convert("to-hf", tmp_path / "run", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "logits equal" in done.stdout
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer; folder = sys.argv[1];"
        "t = AutoTokenizer.from_pretrained(folder); m = AutoModelForCausalLM.from_pretrained(folder);"
        "print(m.generate(**t('to be or', return_tensors='pt'), max_new_tokens=3, do_sample=False).shape)"
    )
    # As anybody would load it: without this project on the path.
    alone = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert alone.returncode == 0, alone.stderr


def test_a_difference_is_found(corpus: Path, tmp_path: Path) -> None:
    """The comparison is not a formality: a changed export fails it."""
    run, out = tmp_path / "run", tmp_path / "out"
    start(*MODEL, *SMALL, "--data-path", corpus, "--train-iters", 2, "--save", run)
    assert convert("to-hf", run, out).returncode == 0
    code = (
        "import sys; from safetensors.torch import load_file, save_file; p = sys.argv[1] + '/model.safetensors';"
        "t = load_file(p); q = t['model.layers.1.self_attn.q_proj.weight']; q.copy_(q.flip(0)); save_file(t, p);"
        "from pathlib import Path; from tools.convert_checkpoint import _Verdict, find_checkpoint;"
        "_Verdict().compare(find_checkpoint(Path(sys.argv[2])), Path(sys.argv[1]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, out, run], capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert found.returncode == 1 and "NOT EQUAL" in found.stderr, found.stderr


GENERATE = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True, dtype=torch.float32)
ids, pad = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(0)), 0
options = dict(max_new_tokens=6, do_sample=False, pad_token_id=pad)
cached, plain = (model.generate(ids, use_cache=cache, **options) for cache in (True, False))
assert torch.equal(cached, plain), "the cache changes what is generated"
left = torch.cat((torch.full((2, 3), pad), ids), dim=1)
mask = torch.arange(12).expand(2, -1) >= 3
padded = model.generate(left, attention_mask=mask.long(), **options)
assert torch.equal(padded[:, 3:], cached), "padding changes what is generated"
loss = model(ids, labels=ids).loss
wanted = torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
assert abs(loss - wanted) < 1e-6
for name in ("cache", "past_key_values"):
    again = model(ids[:, :5], use_cache=True)
    step = model(ids[:, 5:], **{name: again.get("cache", again.get("past_key_values"))})
    assert (step.logits - model(ids).logits[:, 5:]).abs().max() < 1e-5, f"{name} is not read"
for unknown in ({"sliding_window": 4}, {"head_mask": None}):
    try:
        model(ids, **unknown)
    except TypeError as error:
        assert next(iter(unknown)) in str(error)
    else:
        raise AssertionError(f"{unknown} is ignored")
print("as it should be")
"""


def test_the_paper_flavour_brings_its_own_code(corpus: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    model = [*MODEL, "--model", "palm-tiny-paper", *SMALL, "--num-layers", 4, "--data-path", corpus]
    pruning = ["--pruning-layout", "1", "--pruning-seed-tokens", 256]
    start(*model, *pruning, "--train-iters", 4, "--lr", "0.01", "--save", run)
    assert "logits equal" in convert("to-hf", run, out).stdout
    assert sorted(p.name for p in out.glob("*.py")) == ["configuration_palm_paper.py", "modeling_palm_paper.py"]
    assert "trust_remote_code=True" in (out / "README.md").read_text()
    # As anybody would load it: without this project on the path.
    outside = {"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", GENERATE, out]
    alone = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, env=outside)
    assert alone.stdout == "as it should be\n", alone.stderr
    # In again, where the folder's own code is not what runs.
    (out / "modeling_palm_paper.py").write_text("raise SystemExit('executed')")
    assert "logits equal" in convert("from-hf", out, tmp_path / "again").stdout
    assert "logits equal" in convert("to-hf", tmp_path / "again", tmp_path / "out2").stdout
    before, after = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "out2"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_what_is_not_there_cannot_be_exported(tmp_path: Path) -> None:
    assert convert("to-hf", tmp_path / "nothing", tmp_path / "out").returncode == 2
    assert not (tmp_path / "out").exists()


def test_inspect_tells_what_a_checkpoint_is(base_run: Path) -> None:
    said = convert("inspect", base_run).stdout
    assert "layers kept: 0, 1, 2, 3, 4, 5" in said and "layers removed: none" in said
    assert "step 30, 3,840 tokens seen, optimizer lion" in said
    assert "started from: random weights" in said
    assert "4 files, sizes as written" in said
    assert "4 files, whole" in convert("inspect", base_run, "--verify").stdout


def test_a_run_that_was_moved_tells_and_gives_all_it_has(
    base_run: Path, corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """Its tokenizer is in its folder; where its weights came from, and what was measured, are in the model card."""
    shutil.copy(tokenizer, tmp_path / "tokenizer.json")
    vocabulary = ["--vocab-size", 300, "--tokenizer", tmp_path / "tokenizer.json"]
    start(*MODEL, *SMALL, *vocabulary, "--data-path", corpus, "--train-iters", 3, "--save", tmp_path / "base")
    pruning = ["--pruning-layout", "1,2", "--pruning-seed-tokens", 256, "--train-iters", 5]
    start(*SMALL, "--load", tmp_path / "base", "--data-path", corpus, *pruning, "--save", tmp_path / "half")
    (tmp_path / "tokenizer.json").unlink()
    shutil.rmtree(tmp_path / "base")
    moved = (tmp_path / "half").rename(tmp_path / "elsewhere")
    out = tmp_path / "out"
    assert "logits equal" in convert("to-hf", moved, out).stdout
    assert (out / "tokenizer.json").exists()
    figures = result(moved)
    card = (out / "README.md").read_text()
    for line in (
        "| layers | 2 of 4 |",
        "| layers removed | 1, 2 |",
        f"| started from | {tmp_path}/base |",
        "| trained here for | 5 steps, 640 tokens, optimizer lion |",
        f"| validation perplexity at the end | {figures['perplexity']:.4g} |",
        f"| training FLOPs here | {figures['flops']:.3g} |",
    ):
        assert line in card
    for folder in (moved, out):
        said = convert("inspect", folder).stdout
        assert "layers kept: 0, 3" in said and "layers removed: 1, 2" in said
        assert "640 tokens seen" in said and f"started from: {tmp_path}/base" in said
        assert "tokenizer.json" in said


def test_a_damaged_checkpoint_is_not_exported(base_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(base_run, tmp_path / "run"))
    (victim,) = run.glob("checkpoints/*/__0_0.distcp")
    content = bytearray(victim.read_bytes())
    content[1000] ^= 1
    victim.write_bytes(content)
    done = convert("to-hf", run, tmp_path / "out")
    assert done.returncode == 2 and "__0_0.distcp is not what was written" in done.stderr
    assert not (tmp_path / "out").exists()
    assert convert("inspect", run, "--verify").returncode == 2


def test_what_is_neither_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    done = convert("inspect", tmp_path)
    assert done.returncode == 2 and "model_type bert, which is not known" in done.stderr
    assert "Traceback" not in done.stderr


def test_logits_need_not_be_compared(base_run: Path, tmp_path: Path) -> None:
    assert "logits not compared" in convert("to-hf", base_run, tmp_path / "out", "--no-compare").stdout


@pytest.mark.parametrize("given", ["tokenizer", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tokenizer_config.json", {"eos_token": "<fin>", "bos_token": "<fin>"}),
        ("special_tokens_map.json", {"eos_token": {"content": "<fin>"}}),
        ("config.json", {"model_type": "llama", "eos_token_id": 0}),
        ("generation_config.json", {"eos_token_id": [0, 3]}),
    ],
)
def test_an_end_token_that_is_named_beside_the_tokenizer_is_kept(
    given: str, name: str, says: dict[str, Any], corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    folder, run, out = tmp_path / "tokenizer", tmp_path / "run", tmp_path / "out"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.read_text().replace("<|endoftext|>", "<fin>"))
    (folder / name).write_text(json.dumps(says))
    model = [*MODEL, "--vocab-size", 320, *SMALL, "--num-layers", 2, "--data-path", corpus]
    start(*model, "--tokenizer", tmp_path / given, "--train-iters", 1, "--save", run)
    shutil.rmtree(folder)
    assert "logits equal" in convert("to-hf", run, out).stdout
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 0
