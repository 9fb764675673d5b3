"""Score a run, one of its checkpoints or a Hugging Face folder.

python tools/evaluate.py runs/quickstart/compressed --tasks paper13 --data eval_data
python tools/evaluate.py exported --tasks blimp perplexity --text val.jsonl
torchrun --nproc-per-node 4 tools/evaluate.py RUN --tasks paper12 --tensor-model-parallel-size 2

Tasks: paper13, paper12, eight, blimp, blimp_supplement, single ones of these (piqa, blimp_drop_argument, ...),
perplexity, rouge, and any of lm-evaluation-harness. The scores go into RUN/evaluation.json.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.environment import job_place
from megatron_distill.config.error import ConfigError
from megatron_distill.config.limits import COUNT, LONGEST, RANKS, path, whole_number, word
from megatron_distill.config.program import run_program, say
from megatron_distill.evaluation.recorder import Recorder
from megatron_distill.evaluation.request import Evaluation
from megatron_distill.evaluation.results import Results, said, table
from megatron_distill.evaluation.score_file import add_scores, check_out, known
from megatron_distill.evaluation.suites import check_names, expand

if TYPE_CHECKING:
    from megatron_distill.evaluation.subject import Subject


def main(arguments: list[str] | None = None) -> int:
    """Evaluate; returns 0 if every task ran, 2 if one could not."""
    return run_program("evaluate.py", lambda: evaluate(vars(_parser().parse(arguments))))


def evaluate(arguments: dict[str, Any]) -> int:
    """Run the tasks, print and keep the scores."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("lm-evaluation-harness is missing; pip install 'megatron_distill[eval]'")
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    place = job_place()
    out, keep = arguments.pop("out"), arguments.pop("keep")
    names = expand([name for words in arguments.pop("tasks") for name in words.split(",") if name])
    if not names:
        raise ConfigError("--tasks names no task; docs/evaluation.md has those that there are")
    check_names(names)
    asked = Evaluation(tasks=tuple(names), **arguments)
    if asked.limit is not None and names == ["perplexity"]:
        raise ConfigError("--limit counts the items of tasks, and perplexity has none; give --max-tokens")
    if out is not None:
        check_out(out)
    from megatron_distill.evaluation.subject import find_subject  # imports torch

    subject = find_subject(asked)
    out = out or subject.file
    if out is not None:
        check_out(out)
    recorder = _recorder(asked, subject, out, keep=keep)
    done = {score.task for score in recorder.results.scores.values()}
    left = tuple(name for name in names if name not in done)
    if left and not _run(replace(asked, tasks=left), subject, recorder):
        return 0  # another rank speaks
    if not left and place.rank:
        return 0
    return _tell(recorder, out if left else None)


def _recorder(asked: Evaluation, subject: Subject, out: Path | None, *, keep: bool) -> Recorder:
    """With the scores that are kept, writing to `out` after each task; to what is no file only once, at the end."""
    settings = {name: asked.settings_of(name, subject.tokenizer) for name in asked.tasks}
    results = Results(str(asked.model), subject.iteration, subject.weights)
    if keep and out is not None and out.is_file():
        results.scores = known(out, subject.name, subject.weights, settings)
    if out is None:
        return Recorder(results, settings)
    whole = out.is_file() or not out.exists()

    def save(found: Results) -> None:
        over = {score.task for score in found.scores.values()} | found.failures.keys()
        if whole or over.issuperset(asked.tasks):
            for line in add_scores(out, subject.name, found):
                say("evaluate.py", line)

    return Recorder(results, settings, save)


def _run(asked: Evaluation, subject: Subject, recorder: Recorder) -> bool:
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    from transformers.utils import logging

    from megatron_distill.evaluation.evaluate import evaluate as run

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # texts longer than the context are expected, and cut
    return run(asked, subject, recorder)


def _tell(recorder: Recorder, wrote: Path | None) -> int:
    """Print what was found, all of which is on disk by now; returns the exit code."""
    results = recorder.results
    for line in said(results.failures):
        say("evaluate.py", line)
    if results.scores:
        print(table(results))
    if wrote is not None:
        print(f"wrote {wrote}")
    return 2 if results.failures else 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    add, ranks = parser.add_argument, whole_number(least=1, most=RANKS)
    add("model", type=path, help="run folder, checkpoint or Hugging Face folder")
    add("--tasks", type=word, nargs="+", required=True, help="names, with spaces or commas between them")
    add("--data", type=path, help="folder with the tasks' items as JSON lines; without it they come from the hub")
    add("--limit", type=whole_number(least=1), help="items of each task; all if absent")
    add("--text", type=path, help="for perplexity: a .txt file or JSON lines with the field text")
    add("--corpus", type=path, help="for perplexity: prefix of an indexed corpus of the model's tokenizer")
    add(
        "--seq-length",
        type=whole_number(least=2, most=LONGEST),
        help="window of perplexity, and the longest context of all tasks",
    )
    add(
        "--max-tokens",
        type=whole_number(least=2, most=COUNT * 1000),
        help="for perplexity: tokens from the beginning; all if absent",
    )
    add("--instructions", type=path, help="for rouge: JSON lines with prompt (or instruction and input) and output")
    add(
        "--seeds",
        type=whole_number(least=0, most=(1 << 32) - 1),
        nargs="+",
        default=(10, 20, 30, 40, 50),
        help="for rouge",
    )
    add("--tokenizer", type=path, help="instead of the one that the model records")
    add("--tensor-model-parallel-size", dest="tensor", type=ranks, default=1, help="ranks that share each layer")
    add("--pipeline-model-parallel-size", dest="pipeline", type=ranks, default=1, help="ranks that share the layers")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: as the weights are stored")
    add(
        "--batch-tokens",
        type=whole_number(least=1, most=LONGEST),
        default=4096,
        help="tokens computed at once on a rank",
    )
    add("--backend", choices=["ours", "hf"], default="ours", help="hf: the harness's own, for other architectures")
    add("--keep", action="store_true", help="leave out tasks that this model has scores of, by the same flags")
    add("--out", type=path, help="file for the scores; RUN/evaluation.json if absent")
    return parser


if __name__ == "__main__":
    sys.exit(main())
