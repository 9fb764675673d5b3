"""More than a thousand wrong invocations of every program, and how each of them ends.

Each must end with exit code 2 and one sentence, leave nothing behind, and show no traceback. Programs are called in
forks of a process that has imported what they need, so that a case costs hundredths of a second; scripts are started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import signal
import subprocess
import sys
import time
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from megatron_distill.config.run import RunConfig
from megatron_distill.planning.request import PlanConfig
from tests.support.corpora import write_corpus
from tests.support.runs import ROOT, environment
from tests.support.texts import write_text

NUMBERS = ["", "x", "nan", "-inf", "1e400", "9" * 30, str(-(1 << 70)), "²"]
"""What no flag takes for a number."""
PATHS = ["", "s3://bucket/x", "~/x", "n" * 300, "a\0b", "a\udcffb"]
"""What no flag takes for a path."""
WORDS = ["", "a\0b", "a\udcffb"]
TIMEOUT_S = 60.0
UNCAUGHT = 70


@dataclass(frozen=True)
class Case:
    """One wrong invocation."""

    program: str
    """pretrain_distill, a module of tools/, megatron_distill, or a script of examples/."""
    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment."""
    text: str = ""
    """What the program reads from its standard input."""

    def __str__(self) -> str:
        words = [f"{name}={value!r}" for name, value in self.variables.items()]
        return " ".join([*words, self.program, *(repr(word)[:60] for word in self.arguments)])


@dataclass(frozen=True)
class Ending:
    """How an invocation ended."""

    exit_code: int | None
    """None where it did not end."""
    out: str
    error: str
    made: tuple[str, ...] = ()
    """Files that it left in its working directory."""


def fault_of(case: Case, ending: Ending) -> str:
    """What is wrong with how a case ended, "" if nothing is."""
    lines = ending.error.strip().splitlines()
    if ending.exit_code is None:
        return "does not end"
    if "Traceback" in ending.error:
        return f"traceback: {lines[-1]}"
    if ending.exit_code != 2:
        return f"exit code {ending.exit_code}: {' / '.join([*lines, *ending.out.splitlines()][-2:])[:200]}"
    if len(lines) != 1:
        return f"{len(lines)} lines: {ending.error[:200]!r}"
    if "unbound variable" in lines[0] or ": line " in lines[0]:
        return f"bash's own words: {lines[0]}"
    if not case.program.endswith(".sh") and not lines[0].startswith(case.program.removeprefix("tools/")):
        return f"the sentence does not begin with the program's name: {lines[0]}"
    return f"left {', '.join(ending.made)} behind" if ending.made else ""


def make_scene(folder: Path) -> None:
    """What right parts of the invocations name: a corpus, text, and a tokenizer."""
    write_corpus(folder / "c")
    write_text(folder / "text.jsonl")
    (folder / "latin1.txt").write_bytes(b"caf\xe9\n")
    (folder / "loop.flags").write_text(f"--seed 1\n@{folder}/loop.flags\n")
    (folder / "latin1.flags").write_bytes(b"--save caf\xe9\n")
    (folder / "quote.flags").write_text("--save 'x\n")
    (folder / "dir").mkdir()
    (folder / "hf").mkdir()
    (folder / "hf" / "config.json").write_text("{}")
    (folder / "half").mkdir()
    (folder / "half" / "latest").write_text("iter_0000001")
    trainer: Any = importlib.import_module("tools.train_tokenizer")
    tokenizer = str(folder / "t.json")
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.main(["--input", str(folder / "text.jsonl"), "--vocab-size", "400", "--output", tokenizer])


def all_cases(scene: Path) -> list[Case]:
    """Every case, in an order that does not change."""
    return [*_pretrain(scene), *_plan(), *_tools(scene), *_environment(scene), *_scripts()]


def _pretrain(scene: Path) -> Iterator[Case]:
    right = ("--data-path", f"{scene}/c", "--save", "out", "--train-iters", "2", "--vocab-size", "60")
    right += ("--seq-length", "32", "--precision", "fp32")
    yield from _of_config("pretrain_distill", RunConfig, right)
    vanilla, apart = ("--loss", "vanilla"), ("--teacher-placement", "separate")
    beside = ("--teacher-placement", "colocated", "--teacher-load", f"{scene}/half")
    for words in (
        *((f"@{name}",) for name in ("", "none.flags", *(f"{scene}/{n}" for n in _FLAG_FILES))),
        ("stray",),
        ("-x",),
        ("--",),
        *(("--model", name) for name in ("palm", "palm-300", "PALM-TINY")),
        *(("--pruning-layout", text) for text in ("0", "1-", "²", "1-9999999999999", "2-1", "1,1", "maxgap", "٣")),
        *(("--pruning-layout", "1", "--pruning-seed-tokens", text) for text in ("1X", "-1", "1e30", "nan", "")),
        *((f"--pruning-{name}-tokens", "1M") for name in ("seed", "gap")),
        *(("--train-tokens", text) for text in ("1M", "", "x", "-5")),
        *(("--split", text) for text in ("1,2,3,4", "0,1", "-1,2", "nan,1", "a", "1e308,1e308", "inf")),
        *(("--data-path", *text.split()) for text in ("1e308 a 1e308 b", "0 a 1 b", "-1 a", "0.5 a b", "nan a 1 b")),
        *(("--data-path", f"{scene}/{name}") for name in ("none", "dir", "text.jsonl")),
        *(("--tokenizer", f"{scene}/{name}") for name in ("none", "dir", "text.jsonl", "latin1.txt", "t.json")),
        *(("--label", *text) for text in (("model",), ("=x",), ("a=1", "a=2"), ("",), ("a=\udcff",))),
        *(("--load", f"{scene}/{name}") for name in ("none", "dir", "text.jsonl", "half", "hf", "half/checkpoints")),
        *(("--save", name) for name in ("/dev/null/x", f"{scene}/text.jsonl", "r/checkpoints/iter_0000001/x")),
        *(("--loss", text, *beside) for text in _LOSSES),
        *((*vanilla, *rest) for rest in ((), apart, ("--teacher-placement", "beside"))),
        *((*apart, *rest) for rest in ((), ("--loss",))),
        *(
            (name, value)
            for name, value in (
                ("--bridge-credits", "8"),
                ("--bridge-wire", "topk"),
                ("--bridge-top-k", "8"),
                ("--bridge-topk", "8"),
                ("--scale-momentum", "0.5"),
                ("--lm-weight", "0"),
                ("--teacher-load", "x"),
                ("--teacher-tensor-model-parallel-size", "2"),
                ("--seq-length", "4096"),
                ("--hidden-size", "66"),
                ("--micro-batch-size", "3"),
                ("--lr-warmup-iters", "2"),
                ("--lr-warmup-tokens", "x"),
                ("--vocab-size", "40"),
                ("--tensor-model-parallel-size", "2"),
                ("--eod-token", "60"),
                ("--optimizer", "adamw"),
            )
        ),
        ("--no-normalise-losses",),
        ("--sequence-parallel",),
        ("--eod-mask-loss",),
        *((name, "1") for name in RunConfig.OTHER_NAMES),
    ):
        yield Case("pretrain_distill", (*right, *words))
    for missing in ("--data-path", "--save", "--train-iters"):
        at = right.index(missing)
        yield Case("pretrain_distill", (*right[:at], *right[at + 2 :]))


_FLAG_FILES = ("loop.flags", "latin1.flags", "quote.flags", "dir")
_LOSSES = [
    *(
        "vanila",
        "kl",
        "forward-kl",
        "vanilla:",
        "vanilla:temperature",
        "vanilla:heat=1",
        ":weight=1",
        "vanilla:weight=-1",
    ),
    *("vanilla:weight=1e300", "vanilla:weight=nan", "vanilla:weight=x", "vanilla:weight=True", "\0", ""),
]


def _plan() -> Iterator[Case]:
    right = ("--teacher", "palm-1.1b-paper", "--layers", "12", "--gpus", "8")
    yield from _of_config("tools/plan", PlanConfig, right)
    for words in (
        ("--teacher", "palm-9b"),
        ("--layers", "25"),
        ("--train-tokens", "0"),
        ("--pruning-seed-tokens", "20B"),
        ("--loss", "kl"),
        ("--bridge-topk", "3"),
        ("--gpus", "23", "--method", "none"),
        ("--student", "palm-180m", "--method", "homotopic"),
        ("--teacher", "/dev/null"),
        ("--gpus", "1000000000"),
    ):
        yield Case("tools/plan", (*right, *words))


def _of_config(program: str, config_class: type, right: tuple[str, ...]) -> Iterator[Case]:
    """Every flag of a config with values of every kind that it does not take, without one, and misspelt."""
    for flag, kind in _flags(config_class):
        yield Case(program, (*right, flag[:-2] + flag[-1] + "q"))
        if kind is bool:
            yield Case(program, (*right, f"{flag}=yes"))
            continue
        yield Case(program, (*right, flag))
        values = NUMBERS if kind in (int, float) else ["", "none such"] if kind is Literal else WORDS
        for value in values:
            yield Case(program, (*right, f"{flag}={value}"))
    paths = ("--save", "--load", "--teacher-load", "--tokenizer", "--data-path", "--valid-data-path")
    for flag in paths if config_class is RunConfig else ():
        for value in PATHS:
            yield Case(program, (*right, f"{flag}={value}"))


def _flags(config_class: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(config_class)
    for item in dataclasses.fields(config_class):
        name = "-".join(part for part in (prefix, item.name.replace("_", "-")) if part)
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from _flags(typing.cast(type, hint), item.metadata["prefix"])
            continue
        kinds = [hint, typing.get_origin(hint), *typing.get_args(hint)]
        yield "--" + name, next((k for k in (bool, int, float, Literal) if k in kinds), str)


@dataclass(frozen=True)
class Tool:
    """What is right for a tool, and its arguments by kind."""

    right: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    wrong: tuple[tuple[str, ...], ...] = ()
    """More that is wrong, in place of all of `right`."""


def _described(scene: Path) -> dict[str, Tool]:
    text, tokenizer = f"{scene}/text.jsonl", f"{scene}/t.json"
    corpus = ("--input", text, "--tokenizer", tokenizer, "--output-prefix", "made")
    bpe = ("--input", text, "--vocab-size", "400", "--output", "made.json")
    folders = [f"{scene}/{name}" for name in ("none", "dir", "text.jsonl", "half", "hf")]
    ranks = ("--tensor-model-parallel-size", "--pipeline-model-parallel-size")
    return {
        "tools/cost": Tool(
            ("--ranks", "2"), ("--ranks", "--mfu"), choices=("--device",), wrong=(("stray",), ("--mfu", "0"))
        ),
        "tools/generate": Tool(
            (f"{scene}/half", "--prompt", "a"),
            ("--max-new-tokens", "--temperature", "--top-k", "--top-p", "--no-repeat-ngram", "--seed", *ranks),
            ("--prompt-file", "--tokenizer"),
            choices=("--precision",),
            wrong=(
                *((folder, "--prompt", "a") for folder in folders),
                ("", "--prompt", "a"),
                (f"{scene}/half",),
                *((f"{scene}/half", "--prompt-file", f"{scene}/{name}") for name in ("none", "dir", "latin1.txt")),
                (f"{scene}/half", "--prompt", "a\ud800"),
                (),
            ),
        ),
        "tools/evaluate": Tool(
            (f"{scene}/half", "--tasks", "perplexity", "--text", text),
            ("--limit", "--seq-length", "--max-tokens", "--seeds", "--batch-tokens", *ranks),
            ("--data", "--text", "--corpus", "--instructions", "--tokenizer", "--out"),
            ("--tasks",),
            ("--precision", "--backend"),
            wrong=(
                *((folder, "--tasks", "perplexity", "--text", text) for folder in folders),
                (f"{scene}/half", "--tasks", ","),
                (f"{scene}/half",),
                (),
            ),
        ),
        "tools/convert_checkpoint": Tool(
            ("to-hf", f"{scene}/half", "made"),
            wrong=(
                *(("to-hf", folder, "made") for folder in folders),
                *(("from-hf", folder, "made") for folder in folders),
                *(("inspect", folder) for folder in folders),
                *(("to-hf", f"{scene}/half", path) for path in PATHS),
                *(("from-hf", path, "made") for path in PATHS),
                *(("inspect", path) for path in PATHS),
                ("to-hf", f"{scene}/half"),
                ("to-hg", "a", "b"),
                ("inspect", f"{scene}/half", "--verfy"),
                (),
            ),
        ),
        "tools/report": Tool(
            (f"{scene}/dir", "--output", "made"),
            paths=("--output", "--base", "--compressed", "--scratch"),
            wrong=(
                ("--output", "made"),
                ("--base", f"{scene}/dir", "--output", "made"),
                (f"{scene}/none", "--output", "made"),
                *((path, "--output", "made") for path in PATHS),
                (),
            ),
        ),
        "tools/gather_text": Tool(("--output", "made.jsonl"), paths=("--output",), wrong=((), ("made.jsonl",))),
        "tools/train_tokenizer": Tool(
            bpe,
            ("--vocab-size",),
            ("--input", "--output"),
            ("--text-key",),
            ("--kind",),
            wrong=tuple(
                (*bpe, *more)
                for more in (
                    *(("--vocab-size", value) for value in ("319", "99999999999999", str(1 << 40), str(1 << 64))),
                    ("--output", "made.model"),
                    ("--kind", "sentencepiece"),
                    *(("--input", f"{scene}/{name}") for name in ("none", "dir", "latin1.txt")),
                )
            ),
        ),
        "tools/preprocess_data": Tool(
            corpus,
            ("--max-prompt-tokens", "--workers"),
            ("--input", "--output-prefix", "--tokenizer"),
            ("--text-key",),
            ("--on-error",),
            wrong=tuple(
                (*corpus, *more)
                for more in (
                    *(("--workers", value) for value in ("0", "-1", "100000")),
                    *(("--tokenizer", f"{scene}/{name}") for name in ("none", "dir", "latin1.txt", "text.jsonl")),
                    *(("--input", f"{scene}/{name}") for name in ("none", "dir")),
                    ("--output-prefix", "none/made"),
                )
            ),
        ),
        "megatron_distill": Tool((), wrong=((), ("doctr",), ("doctor", "x"), ("",))),
    }


def _tools(scene: Path) -> Iterator[Case]:
    for program, tool in _described(scene).items():
        kinds = ((tool.numbers, NUMBERS), (tool.paths, PATHS), (tool.words, WORDS), (tool.choices, ["", "none such"]))
        for names, values in kinds:
            for name in names:
                yield Case(program, (*tool.right, name[:-2] + name[-1] + "q"))
                yield Case(program, (*tool.right, name))
                for value in values:
                    yield Case(program, (*tool.right, f"{name}={value}"))
        for words in tool.wrong:
            yield Case(program, words)
        if program != "megatron_distill":
            yield Case(program, (*tool.right, "--none-such"))
    right = f"--data-path {scene}/c --save out --train-iters 2"
    for line in (f"{right} --save 'x", f"{right} --lr x", f"{right} \0", "--modle x", f"{right} --load none"):
        yield Case("tools/cost", (), text=f"{line}\n")


def _environment(scene: Path) -> Iterator[Case]:
    """Variables that torchrun sets, and programs that read them."""
    bad = ["", "x", "-1", "1.5", "9" * 30, "²", "nan"]
    numbered = [{"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", name: value}
                for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") for value in bad]  # fmt: skip
    places = [*numbered, {"WORLD_SIZE": "0"}, {"WORLD_SIZE": "2", "RANK": "2"}, {"RANK": "1"}, {"LOCAL_RANK": "9"}]
    right = ("--data-path", f"{scene}/c", "--save", "out", "--train-iters", "2", "--vocab-size", "60")
    for variables in places:
        yield Case("pretrain_distill", (*right, "--dry-run"), variables)
        yield Case("tools/generate", (f"{scene}/half", "--prompt", "a"), variables)
        yield Case("tools/evaluate", (f"{scene}/half", "--tasks", "perplexity"), variables)


def _scripts() -> Iterator[Case]:
    """Variables of the scripts."""
    for script in ("main/300m.sh", "compress/1.1b.sh", "pretrain/180m.sh"):
        for name, values in _SCRIPT_VARIABLES.items():
            for value in values:
                yield Case(script, ("--dry-run",), {"SCALE": "tiny", name: value})
        yield Case(script, (), {"SCALE": "tiny", "TASKS": "typo"})
        yield Case(script, (), {"SCALE": "paper"})


_SCRIPT_VARIABLES: dict[str, tuple[str, ...]] = {
    "SCALE": ("huge", "Tiny", "0"),
    "LIMIT": ("abc", "0", "-1", "1.5"),
    "SEEDS": ("abc", "1 x", "-1", " "),
}


Main = Callable[[list[str]], int]


_IMPORTED_LATE = [
    "megatron_distill.checkpoint.describe",
    "megatron_distill.checkpoint.from_hf",
    "megatron_distill.checkpoint.huggingface",
    "megatron_distill.evaluation.evaluate",
    "megatron_distill.generation.text",
    "megatron_distill.training.job",
    "megatron_distill.training.teaching",
]


def program(name: str) -> Main:
    """The function that a program's command line calls."""
    module = {"megatron_distill": "megatron_distill.__main__"}.get(name, name.replace("/", "."))
    return typing.cast(Main, importlib.import_module(module).main)


def run_cases(cases: list[Case], folder: Path) -> list[Ending]:
    """How each case ends, one after the other; `folder` is for what they write."""
    sys.path.insert(0, str(ROOT))
    programs = {case.program for case in cases if not case.program.endswith(".sh")}
    for name in sorted(programs):
        program(name)  # imported once, before the forks, as is what programs import when they need it
    for module in _IMPORTED_LATE if programs else ():
        importlib.import_module(module)
    return [_run(case, folder / str(number)) for number, case in enumerate(cases)]


def _run(case: Case, folder: Path) -> Ending:
    work, out, error = folder / "work", folder / "out", folder / "error"
    work.mkdir(parents=True)
    (folder / "in").write_text(case.text)
    if case.program.endswith(".sh"):
        code = _start_script(case, work, out, error)
    else:
        code = _fork(case, folder)
    made = tuple(sorted(str(path.relative_to(work)) for path in work.rglob("*")))
    return Ending(code, out.read_text(errors="replace"), error.read_text(errors="replace"), made)


def _start_script(case: Case, work: Path, out: Path, error: Path) -> int | None:
    taken = {"DATA", "TOKENIZER", "BASE", "RUNS", "OUT", "SEEDS", "TASKS", "TASK_DATA", "LIMIT", "WORLD_SIZE", "RANK"}
    inherited = {name: value for name, value in environment().items() if name not in taken}
    search = os.pathsep.join([str(Path(sys.executable).parent), inherited["PATH"]])
    variables = inherited | {"NO_VENV": "1", "GPUS": "1", "PATH": search, "RUNS": str(work)} | case.variables
    command = ["bash", str(ROOT / "examples" / case.program), *case.arguments]
    with out.open("w") as to_out, error.open("w") as to_error, contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, env=variables, stdout=to_out, stderr=to_error, timeout=TIMEOUT_S).returncode
    return None


def _fork(case: Case, folder: Path) -> int | None:
    child = os.fork()
    if child == 0:
        _be(case, folder)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)


def _be(case: Case, folder: Path) -> None:
    """Be the program, and end."""
    code = UNCAUGHT
    try:
        for number, name, flags in ((0, "in", os.O_RDONLY), (1, "out", _WRITE), (2, "error", _WRITE)):
            os.dup2(os.open(folder / name, flags, 0o644), number)
        # pytest and multiprocessing have put others in their place.
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(folder / "work")
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        os.environ.update(case.variables)
        sys.argv = [case.program, *case.arguments]
        code = program(case.program)(list(case.arguments))
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
