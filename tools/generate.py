"""Text from a Hugging Face folder, such as convert_checkpoint.py writes.

python tools/generate.py runs/quickstart/exported --prompt "Return the"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Print one continuation; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Hugging Face folder")
    parser.add_argument("--prompt", required=True, help="text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="tokens to add")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 takes the likeliest token")
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    arguments = parser.parse_args()
    if not (arguments.folder / "config.json").exists():
        print(f"generate.py: {arguments.folder} is no Hugging Face folder: it has no config.json", file=sys.stderr)
        return 2
    print(generate(arguments))
    return 0


def generate(arguments: argparse.Namespace) -> str:
    """The prompt and its continuation."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from transformers.utils import logging

    logging.disable_progress_bar()
    set_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder)
    inputs = tokenizer(arguments.prompt, return_tensors="pt")
    sampling = {"do_sample": True, "temperature": arguments.temperature} if arguments.temperature > 0 else {}
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, **sampling)
    return tokenizer.decode(ids[0], skip_special_tokens=True)


if __name__ == "__main__":
    sys.exit(main())
