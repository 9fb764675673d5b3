"""The folders whose files are damaged: runs, corpora, tokenizers and public models, made in the current folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.support.corpora import write_corpus
from tests.support.programs import call
from tests.support.records import write_study
from tests.support.texts import write_text

TRAIN = (
    *("--hidden-size", "32", "--num-attention-heads", "4", "--num-layers", "3", "--seq-length", "32"),
    *("--micro-batch-size", "2", "--global-batch-size", "4", "--precision", "fp32", "--lr", "1e-3"),
    *("--log-interval", "1", "--eval-iters", "1", "--split", "80,20,0", "--save-interval", "2"),
    *("--keep-checkpoints", "0", "--train-iters", "6"),
)
OWN_CORPUS = ("--data-path", "c", "--tokenizer", "tok.json")
PLAIN_CORPUS = ("--data-path", "plain", "--vocab-size", "400")


def step(program: str, *arguments: object, ends: int = 0) -> None:
    """Run a program in a process of its own, as nothing of it must stay in this one."""
    child = os.fork()
    if child == 0:
        os._exit(call(program, *arguments))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == ends, f"{program} {' '.join(map(str, arguments))} ended with {code}"


def make_tokenizer_and_corpus() -> None:
    """tok.json, the corpus c that it made of text.jsonl, and v.jsonl to be read."""
    write_text(Path("text.jsonl"), documents=40)
    write_text(Path("v.jsonl"), documents=3, words=30, seed=3)
    step("tools/train_tokenizer.py", "--input", "text.jsonl", "--vocab-size", 330, "--output", "tok.json")
    step("tools/preprocess_data.py", "--input", "text.jsonl", "--tokenizer", "tok.json", "--output-prefix", "c")


def make_run() -> tuple[int, None]:
    """The run r, which stopped after 4 of 6 steps, and `other`, of another seed; scores of two checkpoints of r."""
    make_tokenizer_and_corpus()
    step("pretrain_distill.py", *TRAIN, *OWN_CORPUS, "--exit-interval", 4, "--save", "r")
    step("pretrain_distill.py", *TRAIN, *OWN_CORPUS, "--exit-interval", 4, "--save", "other", "--seed", 5)
    for model in ("r/checkpoints/iter_0000002", "r"):
        step("tools/evaluate.py", model, "--tasks", "perplexity", "--text", "v.jsonl", "--seq-length", 64)
    return 0, None


def make_finished_runs() -> tuple[int, None]:
    """Finished runs below runs: base, compressed from it, scratch; with scores."""
    make_tokenizer_and_corpus()
    short = ("--train-iters", 2, "--lr-warmup-iters", 0)
    step("pretrain_distill.py", *TRAIN, *OWN_CORPUS, *short, "--save", "runs/base")
    pruned = ("--load", "runs/base", "--pruning-layout", "1", "--save", "runs/compressed")
    step("pretrain_distill.py", *TRAIN, *OWN_CORPUS, *short, *pruned)
    step("pretrain_distill.py", *TRAIN, *OWN_CORPUS, *short, "--num-layers", 2, "--save", "runs/scratch")
    for run in ("base", "compressed", "scratch"):
        step("tools/evaluate.py", f"runs/{run}", "--tasks", "perplexity", "--text", "v.jsonl", "--seq-length", 64)
    return 0, None


def make_reported_runs() -> tuple[int, None]:
    """The runs of a study below study, each in a cell of the papers' tables."""
    write_study(Path("study"))
    return 0, None


def make_corpora() -> tuple[int, None]:
    """The corpus c, and a model m of its tokenizer."""
    make_tokenizer_and_corpus()
    _save_llama(Path("m"), Path("tok.json"))
    return 0, None


def make_parts() -> tuple[int, None]:
    """Two finished parts of a corpus d of three shards, whose third one was not JSON, and now is."""
    make_tokenizer_and_corpus()
    write_text(Path("a.jsonl"), documents=12, seed=1)
    write_text(Path("b.jsonl"), documents=9, seed=2)
    Path("z.jsonl").write_text("not JSON\n")
    step("tools/preprocess_data.py", *PARTS, ends=2)
    write_text(Path("z.jsonl"), documents=2, seed=3)
    return 0, None


PARTS = ("--input", "a.jsonl", "b.jsonl", "z.jsonl", "--tokenizer", "tok.json", "--output-prefix", "d", "--workers", 1)


def make_tokenizers() -> tuple[int, None]:
    """Four forms: tok.json, spm.model, gpt2/, folder/; a corpus without a record, a model without a tokenizer."""
    write_text(Path("text.jsonl"), documents=40)
    write_text(Path("v.jsonl"), documents=3, words=30, seed=3)
    train = ("--input", "text.jsonl", "--vocab-size", 330)
    step("tools/train_tokenizer.py", *train, "--output", "tok.json")
    step("tools/train_tokenizer.py", *train, "--kind", "sentencepiece", "--output", "spm.model")
    write_corpus(Path("plain"), documents=30, length=100, vocab=300)
    _write_gpt2(Path("gpt2"), json.loads(Path("tok.json").read_text())["model"])
    _save_llama(Path("m"), Path("tok.json"), rows=400)
    shutil.copytree("m", "folder", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    for path in Path("m").glob("*token*"):
        path.unlink()
    return 0, None


def _write_gpt2(folder: Path, bpe: dict[str, object]) -> None:
    folder.mkdir()
    merges = [" ".join(pair) if isinstance(pair, list) else str(pair) for pair in list(bpe["merges"])]  # type: ignore[call-overload]
    (folder / "encoder.json").write_text(json.dumps(bpe["vocab"]))
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]))


def make_public_models() -> tuple[int, None]:
    """Hugging Face folders: llama in two files, gpt2 as pytorch_model.bin, exports of our two flavours."""
    make_tokenizer_and_corpus()
    _save_llama(Path("llama"), Path("tok.json"), max_shard_size="30KB")
    _save_gpt2(Path("gpt2"), Path("tok.json"))
    for flavour, run in (("palm-tiny", "r"), ("palm-tiny-paper", "rp")):
        step("pretrain_distill.py", "--model", flavour, *TRAIN, *OWN_CORPUS, "--train-iters", 1, "--save", run)
        step("tools/convert_checkpoint.py", "to-hf", run, flavour)
        shutil.rmtree(run)
    return 0, None


def _save_llama(folder: Path, tokenizer: Path, rows: int | None = None, **options: object) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from megatron_distill.data.tokenizer import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": rows or loaded.vocab_size, "bos_token_id": loaded.eod_id, "eos_token_id": loaded.eod_id}
    config = LlamaConfig(**sizes, **tokens, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.4)
    LlamaForCausalLM(config).save_pretrained(folder, **options)
    loaded.save_huggingface(folder)


def _save_gpt2(folder: Path, tokenizer: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from megatron_distill.data.tokenizer import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    torch.manual_seed(3)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": loaded.vocab_size}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=loaded.eod_id, eos_token_id=loaded.eod_id))
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    loaded.save_huggingface(folder)
