"""Score a run, one of its checkpoints or a Hugging Face folder.

python tools/evaluate.py runs/quickstart/compressed --tasks paper13 --data eval_data
python tools/evaluate.py exported --tasks blimp perplexity --text val.jsonl
torchrun --nproc-per-node 4 tools/evaluate.py RUN --tasks paper12 --tensor-model-parallel-size 2

Tasks: paper13, paper12, eight, blimp, blimp_supplement, single ones of these (piqa, blimp_drop_argument, ...),
perplexity, rouge, and any of lm-evaluation-harness. The scores go into RUN/evaluation.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError


def main() -> int:
    """Evaluate; returns 0 if every task ran, 2 if one could not."""
    arguments = vars(_parser().parse_args())
    if importlib.util.find_spec("lm_eval") is None:
        print("evaluate.py: lm-evaluation-harness is missing; pip install 'megatron_distill[eval]'", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    try:
        return evaluate(arguments)
    except ConfigError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1


def evaluate(arguments: dict[str, Any]) -> int:
    """Run the tasks, print and keep the scores."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    from transformers.utils import logging

    from megatron_distill.evaluation.evaluate import Evaluation
    from megatron_distill.evaluation.evaluate import evaluate as run
    from megatron_distill.evaluation.results import FILE, said, table, write

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # texts longer than the context are expected, and cut
    out = arguments.pop("out")
    tasks = [name for words in arguments.pop("tasks") for name in words.split(",") if name]
    results = run(Evaluation(tasks=tuple(tasks), **arguments))
    if results is None:
        return 0
    if results.scores:
        print(table(results))
    if out is None and results.iteration is not None:
        model = arguments["model"]
        out = (model if (model / "latest").exists() else model.parent.parent) / FILE
    if out is not None:
        write(out, results)
        print(f"wrote {out}")
    for line in said(results.failures):
        print(f"evaluate.py: {line}", file=sys.stderr)
    return 2 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", type=Path, help="run folder, checkpoint or Hugging Face folder")
    add("--tasks", nargs="+", required=True, help="names, with spaces or commas between them")
    add("--data", type=Path, help="folder with the tasks' items as JSON lines; without it they come from the hub")
    add("--limit", type=int, help="items of each task; all if absent")
    add("--text", type=Path, help="for perplexity: a .txt file or JSON lines with the field text")
    add("--corpus", type=Path, help="for perplexity: prefix of an indexed corpus of the model's tokenizer")
    add("--seq-length", type=int, help="window of perplexity, and the longest context of all tasks")
    add("--max-tokens", type=int, help="for perplexity: tokens from the beginning; all if absent")
    add("--instructions", type=Path, help="for rouge: JSON lines with prompt (or instruction and input) and output")
    add("--seeds", type=int, nargs="+", default=(10, 20, 30, 40, 50), help="for rouge")
    add("--tokenizer", type=Path, help="instead of the one that the model records")
    add("--tensor-model-parallel-size", dest="tensor", type=int, default=1, help="ranks that share each layer")
    add("--pipeline-model-parallel-size", dest="pipeline", type=int, default=1, help="ranks that share the layers")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: as the weights are stored")
    add("--batch-tokens", type=int, default=4096, help="tokens computed at once on a rank")
    add("--backend", choices=["ours", "hf"], default="ours", help="hf: the harness's own, for other architectures")
    add("--out", type=Path, help="file for the scores; RUN/evaluation.json if absent")
    return parser


if __name__ == "__main__":
    sys.exit(main())
