"""Our generation against transformers' `generate` on one exported model: tokens a second, and whether they are equal.

python benchmarks/generate.py

Both continue the same prompts greedily by the same number of tokens, in the same process. `tokens_per_second_equal` has
prompts of one length, `_ragged` of several, which transformers pads on the left. `equal` is the share of tokens that
both say; random weights make near ties, which the order of additions decides.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch  # noqa: E402
from exported_model import write_model  # noqa: E402
from measure import report, seconds_in_turns  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from megatron_distill.checkpoint.inference import find_model, inference_layout, load_for_inference  # noqa: E402
from megatron_distill.generation.sampling import Sampling  # noqa: E402
from megatron_distill.parallel.worlds import Role, open_world  # noqa: E402


def main() -> None:
    """Measure every batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the longest prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to add")
    parser.add_argument("--rounds", type=int, default=3, help="calls of each side that count")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(Path(folder), layers=given.layers, hidden=given.hidden, vocab=given.vocab)
        peer = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        peer.to("cuda" if torch.cuda.is_available() else "cpu")
        stored = find_model(path)
        layout = inference_layout(stored, 1, 1, 1)
        with open_world((Role("generation", layout),)):
            from megatron_distill.models.inference import reading

            with reading(load_for_inference(stored, layout)) as model:
                for batch in given.batch:
                    measure("equal", model, peer, [given.prompt] * batch, given)
                    if batch > 1:
                        ragged = [given.prompt - number * given.prompt // (2 * batch) for number in range(batch)]
                        measure("ragged", model, peer, ragged, given)


def measure(kind: str, model: object, peer: torch.nn.Module, lengths: list[int], given: argparse.Namespace) -> None:
    """Print the share of equal tokens and the tokens per second of one batch."""
    from megatron_distill.generation.generate import generate

    longest, device = max(lengths), next(peer.parameters()).device
    text = torch.randint(1, given.vocab, (len(lengths), longest), generator=torch.Generator().manual_seed(1))
    known = torch.tensor(lengths)
    left, mask = torch.zeros_like(text), torch.zeros_like(text)
    for row, length in enumerate(lengths):
        left[row, longest - length :], mask[row, longest - length :] = text[row, :length], 1
    left, mask = left.to(device), mask.to(device)
    greedy = Sampling(temperature=0)
    options = {"do_sample": False, "max_new_tokens": given.new, "min_new_tokens": given.new, "eos_token_id": None}

    def ours() -> torch.Tensor:
        done = generate(model, text, known, greedy, max_new_tokens=given.new)  # type: ignore[arg-type]
        rows = zip(done.tokens.cpu(), lengths, strict=True)
        return torch.stack([row[length : length + given.new] for row, length in rows])

    def theirs() -> torch.Tensor:
        return peer.generate(left, attention_mask=mask, **options)[:, longest:].cpu()  # type: ignore[operator]

    same = (ours() == theirs()).double().mean().item()
    report(f"equal_{kind}", same, 1.0, "share of tokens", batch=len(lengths))
    tokens = len(lengths) * given.new
    seconds = seconds_in_turns(ours, theirs, rounds=given.rounds, warm_up=1)
    report(f"tokens_per_second_{kind}", *(tokens / s for s in seconds), "tokens/s", batch=len(lengths), **sizes(given))


def sizes(given: argparse.Namespace) -> dict[str, int]:
    """What the figures are of."""
    return {name: getattr(given, name) for name in ("layers", "hidden", "vocab", "prompt", "new")}


if __name__ == "__main__":
    main()
