"""The programs that read a scene, and what each of them makes of it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.programs import call

from .scenes import OWN_CORPUS, PARTS, PLAIN_CORPUS, TRAIN


@dataclass(frozen=True)
class Reader:
    """A command, and what of its outcome must not change."""

    program: str
    arguments: tuple[object, ...]
    made: Callable[[], Any]
    """Read from the current folder afterwards."""

    def read(self) -> tuple[int, Any]:
        """Exit code, and the outcome as JSON, None where there is none."""
        code = call(self.program, *self.arguments)
        if code:
            return code, None
        try:
            return code, self.made()
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:  # damage that the program left
            return code, f"not readable: {error!r}"


def files_in(folder: str, *but: str) -> dict[str, int]:
    """CRC-32 of every file of a folder."""
    paths = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name not in but)
    return {str(path.relative_to(folder)): zlib.crc32(path.read_bytes()) for path in paths}


def trained(run: str) -> Any:
    """Losses and gradient norms of every step, the final perplexity, and the tokenizer that the run keeps."""
    lines = (Path(run) / "metrics.jsonl").read_text(errors="replace").splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    keys = ("kind", "iteration", "loss", "grad_norm")
    result = json.loads((Path(run) / "result.json").read_text())
    return [[row.get(key) for key in keys] for row in rows], result["perplexity"], files_in(f"{run}/tokenizer")


def scores(file: str) -> Any:
    """Values in a file of scores, by model and task."""
    models = json.loads(Path(file).read_text())["models"]
    return {key: {task: score["all"] for task, score in entry["scores"].items()} for key, entry in models.items()}


def _nothing() -> None:
    return None


def _train(*flags: object, run: str = "n", corpus: tuple[str, ...] = OWN_CORPUS) -> Reader:
    return Reader("pretrain_distill.py", (*TRAIN, *corpus, "--save", run, *flags), lambda: trained(run))


def _evaluate(model: str, *flags: object, out: str = "") -> Reader:
    file = ("--out", out) if out else ()
    text = () if "--corpus" in flags else ("--text", "v.jsonl")
    arguments = (model, "--tasks", "perplexity", *text, "--seq-length", 64, "--max-tokens", 150, *flags, *file)
    return Reader("tools/evaluate.py", arguments, lambda: scores(out or f"{model}/evaluation.json"))


def _generate(model: str, *flags: object) -> Reader:
    arguments = (model, "--prompt", "the layer of", "--temperature", 0, "--max-new-tokens", 6, *flags)
    return Reader("tools/generate.py", arguments, _nothing)


def _convert(command: str, *arguments: object, made: Callable[[], Any] = _nothing) -> Reader:
    return Reader("tools/convert_checkpoint.py", (command, *arguments), made)


def _preprocess(tokenizer: str) -> Reader:
    flags = ("--input", "v.jsonl", "--tokenizer", tokenizer, "--output-prefix", "p", "--workers", 1)
    return Reader(
        "tools/preprocess_data.py", flags, lambda: [zlib.crc32(Path(f"p.{x}").read_bytes()) for x in ("bin", "idx")]
    )


_ONE = ("--train-iters", 1, "--lr-warmup-iters", 0)
_THREE = tuple(word for role in ("base", "compressed", "scratch") for word in (f"--{role}", f"runs/{role}"))
RUN = {
    "resume": _train(run="r"),
    "--load": _train("--load", "r", *_ONE),
    "--teacher-load": _train("--teacher-load", "r", "--teacher-placement", "colocated", "--loss", "vanilla", *_ONE),
    "to-hf": _convert("to-hf", "r", "h", made=lambda: files_in("h", "README.md")),
    "evaluate": _evaluate("r"),
    "generate": _generate("r"),
    "inspect": _convert("inspect", "r", "--verify"),
}
FINISHED = {
    "report of three": Reader("tools/report.py", (*_THREE, "--output", "out"), lambda: files_in("out")),
    "evaluate --keep": _evaluate("runs/compressed", "--keep"),
}
REPORTED = {"report": Reader("tools/report.py", ("study", "--output", "out"), lambda: files_in("out"))}
CORPUS = {
    "stream": _train(*_ONE),
    "megatron": _train("--data-order", "megatron", *_ONE),
    "evaluate --corpus": _evaluate("m", "--corpus", "c", out="e.json"),
}

_INPUTS = ("a.jsonl", "b.jsonl", "z.jsonl", "text.jsonl", "v.jsonl", "tok.json", "c.bin", "c.idx", "c.meta.json")
UNFINISHED_PARTS = {"preprocess": Reader("tools/preprocess_data.py", PARTS, lambda: files_in(".", *_INPUTS))}


def of_tokenizer(path: str) -> dict[str, Reader]:
    """The readers of one tokenizer."""
    return {
        "preprocess": _preprocess(path),
        "train": _train("--tokenizer", path, *_ONE, corpus=PLAIN_CORPUS),
        "evaluate": _evaluate("m", "--tokenizer", path, out="e.json"),
        "generate": _generate("m", "--tokenizer", path),
    }


def of_public_model(folder: str) -> dict[str, Reader]:
    """The readers of a Hugging Face folder."""
    return {
        "from-hf": _convert("from-hf", folder, "n", made=lambda: files_in("n")),
        "evaluate": _evaluate(folder, out="e.json"),
        "generate": _generate(folder),
        "inspect": _convert("inspect", folder),
    }


def of_scene(name: str) -> dict[str, Reader]:
    """The readers of a scene; of those with several subjects as "SUBJECT: READER"."""
    if name == "tokenizers":
        return {f"{form}: {n}": r for form in TOKENIZERS for n, r in of_tokenizer(form).items()}
    if name == "public models":
        return {f"{form}: {n}": r for form in PUBLIC_MODELS for n, r in of_public_model(form).items()}
    return {
        "run": RUN,
        "finished runs": FINISHED,
        "reported runs": REPORTED,
        "corpus": CORPUS,
        "parts": UNFINISHED_PARTS,
    }[name]


TOKENIZERS = ("tok.json", "spm.model", "gpt2", "folder")
PUBLIC_MODELS = ("llama", "gpt2", "palm-tiny", "palm-tiny-paper")
