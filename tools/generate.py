"""Text from a run, one of its checkpoints or a Hugging Face folder.

python tools/generate.py runs/quickstart/compressed --prompt "Return the"
torchrun --nproc-per-node 2 tools/generate.py RUN --tensor-model-parallel-size 2 --prompt-file prompts.txt --top-p 0.9
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.environment import job_place
from megatron_distill.config.error import ConfigError
from megatron_distill.config.limits import RANKS, free_text, number, path, whole_number
from megatron_distill.config.program import run_program


def main(arguments: list[str] | None = None) -> int:
    """Print every prompt with its continuation; returns the exit code."""
    return run_program("generate.py", lambda: continue_all(arguments))


def continue_all(words: list[str] | None) -> int:
    """Read the prompts, continue and print them; returns the exit code."""
    arguments = _parser().parse(words)
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    job_place()  # what is wrong with it is said before anything is loaded
    lines = _lines(arguments.prompt_file)
    prompts = [*arguments.prompt, *lines]
    if not prompts:
        raise ConfigError("give a --prompt, or a --prompt-file with one on each line")
    names = [f"--prompt {number}" for number, _ in enumerate(arguments.prompt, 1)]
    names += [f"line {number} of --prompt-file {arguments.prompt_file}" for number, _ in enumerate(lines, 1)]
    for text in generate(arguments, prompts, names) or []:
        print(text)
    return 0


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"--prompt-file {file} is not UTF-8 text") from error


def generate(arguments: argparse.Namespace, prompts: list[str], names: list[str]) -> list[str] | None:
    """The prompts, called `names` in messages, and their continuations; None on ranks but the first."""
    from transformers.utils import logging

    from megatron_distill.generation.text import Request, continue_texts

    logging.disable_progress_bar()
    flags = ("temperature", "top_k", "top_p", "no_repeat_ngram", "seed")
    sampling = {name: value for name in flags if (value := getattr(arguments, name)) is not None}
    return continue_texts(
        Request(
            model=arguments.model,
            prompts=tuple(prompts),
            names=tuple(names),
            max_new_tokens=arguments.max_new_tokens,
            sampling=sampling,
            tokenizer=arguments.tokenizer,
            tensor=arguments.tensor_model_parallel_size,
            pipeline=arguments.pipeline_model_parallel_size,
            precision=arguments.precision,
        )
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    add, ranks = parser.add_argument, whole_number(least=1, most=RANKS)
    add("model", type=path, help="run folder, checkpoint or Hugging Face folder")
    add("--prompt", type=free_text, action="append", default=[], help="text to continue; may be given several times")
    add("--prompt-file", type=path, help="more of them, one on each line")
    add("--max-new-tokens", type=whole_number(least=1, most=1 << 20), default=32, help="tokens to add at most")
    own = "; by default what the model's generation_config.json says, else"
    add("--temperature", type=number(least=0, most=1e6), help=f"0 takes the likeliest token{own} 0.7")
    add("--top-k", type=whole_number(least=0), help=f"draw from the k likeliest tokens, 0: from all{own} 0")
    add(
        "--top-p",
        type=number(above=0, most=1),
        help=f"draw from the likeliest tokens that reach this probability{own} 1",
    )
    add("--no-repeat-ngram", type=whole_number(least=0), default=0, help="no n tokens in a row twice; 0: they may")
    add(
        "--seed",
        type=whole_number(least=0, most=(1 << 63) - 1),
        default=0,
        help="of sampling; prompt i draws the same numbers in any batch",
    )
    add("--tokenizer", type=path, help="instead of the one that the model records")
    add("--tensor-model-parallel-size", type=ranks, default=1, help="ranks that share each layer")
    add("--pipeline-model-parallel-size", type=ranks, default=1, help="ranks that share the layers")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: as the weights are stored")
    return parser


if __name__ == "__main__":
    sys.exit(main())
