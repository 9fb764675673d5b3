"""Text from a run, one of its checkpoints or a Hugging Face folder.

python tools/generate.py runs/quickstart/compressed --prompt "Return the"
torchrun --nproc-per-node 2 tools/generate.py RUN --tensor-model-parallel-size 2 --prompt-file prompts.txt --top-p 0.9
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from megatron_distill.config.error import ConfigError


def main() -> int:
    """Print every prompt with its continuation; returns the exit code."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    try:
        prompts = list(arguments.prompt)
        if arguments.prompt_file is not None:
            prompts += arguments.prompt_file.read_text(encoding="utf-8").splitlines()
        if not prompts:
            raise ConfigError("give a --prompt, or a --prompt-file with one on each line")
        texts = generate(arguments, prompts)
    except (ConfigError, FileNotFoundError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 2
    for text in texts or []:
        print(text)
    return 0


def generate(arguments: argparse.Namespace, prompts: list[str]) -> list[str] | None:
    """The prompts and their continuations, None on ranks but the first."""
    from transformers.utils import logging

    from megatron_distill.generation.sampling import Sampling
    from megatron_distill.generation.text import Request, continue_texts

    logging.disable_progress_bar()
    sampling = Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        no_repeat_ngram=arguments.no_repeat_ngram,
        seed=arguments.seed,
    )
    return continue_texts(
        Request(
            model=arguments.model,
            prompts=tuple(prompts),
            max_new_tokens=arguments.max_new_tokens,
            sampling=sampling,
            tokenizer=arguments.tokenizer,
            tensor=arguments.tensor_model_parallel_size,
            pipeline=arguments.pipeline_model_parallel_size,
            precision=arguments.precision,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", type=Path, help="run folder, checkpoint or Hugging Face folder")
    add("--prompt", action="append", default=[], help="text to continue; may be given several times")
    add("--prompt-file", type=Path, help="more of them, one on each line")
    add("--max-new-tokens", type=int, default=32, help="tokens to add at most")
    add("--temperature", type=float, default=0.7, help="0 takes the likeliest token")
    add("--top-k", type=int, default=0, help="draw from the k likeliest tokens; 0: from all")
    add("--top-p", type=float, default=1.0, help="draw from the likeliest tokens that reach this probability")
    add("--no-repeat-ngram", type=int, default=0, help="no n tokens in a row twice; 0: they may")
    add("--seed", type=int, default=0, help="of sampling; prompt i draws the same numbers in any batch")
    add("--tokenizer", type=Path, help="instead of the one that the model records")
    add("--tensor-model-parallel-size", type=int, default=1, help="ranks that share each layer")
    add("--pipeline-model-parallel-size", type=int, default=1, help="ranks that share the layers")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: as the weights are stored")
    return parser


if __name__ == "__main__":
    sys.exit(main())
