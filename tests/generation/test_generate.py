"""Text from every family, on every layout, against transformers and against a model without a cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelConfig
from megatron_distill.generation.sampling import Sampling
from tests.support.public_models import save_public_model
from tests.support.ranks import launch, ranks
from tests.support.worlds import student_world

if TYPE_CHECKING:
    from megatron_distill.models.inference import Inference

FAMILIES = ["palm", "llama", "qwen3", "gpt2", "opt", "gpt_neox"]
"""Between them: grouped queries, learned positions (OPT counts from 2), partial rotary, QK-norm, both residuals."""
OWN = "palm-tiny-paper"
"""Has no class in transformers, and norms over all heads."""
LAYOUTS = {"tp2": (2, 1), "pp2": (1, 2), "tp2-pp2": (2, 2)}
NEW = 12
LENGTHS = [5, 9, 1, 9]
GREEDY = Sampling(temperature=0)


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    """[4, 9] and [4]; what pads the short ones must not matter."""
    tokens = torch.randint(1, 75, (4, 9), generator=torch.Generator().manual_seed(3))
    return tokens, torch.tensor(LENGTHS)


@contextmanager
def loaded(name: str, folder: Path, tp: int = 1, pp: int = 1) -> Iterator[Inference]:
    """A model of FAMILIES from its folder, or OWN, in a world of its own."""
    os.environ["STORE_FILE"] += f"-{name}"
    with student_world(tp=tp, pp=pp):
        from megatron_distill.checkpoint.inference import find_model, inference_layout, load_for_inference
        from megatron_distill.config.run import Layout
        from megatron_distill.models.build import BuildOptions, build_decoder, initialise
        from megatron_distill.models.inference import reading

        if name == OWN:
            shape = ModelConfig(model=OWN, vocab_size=75, init_method_std=0.2).shape()
            layout = Layout(tensor=tp, pipeline=pp, data=1, num_microbatches=1)
            model = build_decoder(shape, (0, 2, 3), layout, BuildOptions(torch.float32, "sdpa"))
            initialise(model, seed=1)
        else:
            stored = find_model(folder / name)
            model = load_for_inference(stored, inference_layout(stored, tp * pp, tp, pp))
        with reading(model) as inference:
            yield inference


def continued(model: Inference, **options: object) -> list[list[int]]:
    """The new tokens of each row."""
    from megatron_distill.generation.generate import generate

    tokens, lengths = prompts()
    done = generate(model, tokens, lengths, **({"sampling": GREEDY, "max_new_tokens": NEW} | options))  # type: ignore[arg-type]
    rows = zip(done.tokens.tolist(), lengths.tolist(), done.lengths.tolist(), strict=True)
    return [row[start:end] for row, start, end in rows]


def without_cache(model: Inference) -> list[list[int]]:
    """The same by running the whole model, as in training, on the whole text for every token."""
    tokens, lengths = prompts()
    found = []
    for row, length in zip(tokens, lengths.tolist(), strict=True):
        text = row[None, :length]
        for _ in range(NEW):
            positions = torch.arange(text.shape[1])[None]
            logits = model.model(text, positions, None)[:, -1, : model.shape.vocab_size]
            text = torch.cat((text, logits.argmax(-1, keepdim=True)), dim=1)
        found.append(text[0, length:].tolist())
    return found


def by_transformers(folder: Path) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens, lengths = prompts()
    found = []
    for row, length in zip(tokens, lengths.tolist(), strict=True):
        text = row[None, :length]
        done = model.generate(
            text, attention_mask=torch.ones_like(text), do_sample=False, max_new_tokens=NEW, eos_token_id=None
        )
        found.append(done[0, length:].tolist())
    return found


def on_one_rank(rank: int, tmp_path: Path) -> None:
    for name in (*FAMILIES, OWN):
        if name != OWN:
            save_public_model(name, tmp_path / name)
        with loaded(name, tmp_path) as model:
            found = continued(model)
            assert found == without_cache(model), name
            assert len({tuple(row) for row in found}) > 1, f"{name} says the same to everything"
            sampled = continued(model, sampling=Sampling(temperature=0.9, top_p=0.9, seed=4))
            assert sampled != found
        if name != OWN:
            assert found == by_transformers(tmp_path / name), name
        torch.save((found, sampled), tmp_path / f"{name}.pt")


def on_ranks(rank: int, tmp_path: Path, models: Path, layout: str) -> None:
    tp, pp = LAYOUTS[layout]
    for name in (*FAMILIES, OWN):
        with loaded(name, models, tp, pp) as model:
            found, sampled = torch.load(models / f"{name}.pt")
            assert continued(model) == found, name
            assert continued(model, sampling=Sampling(temperature=0.9, top_p=0.9, seed=4)) == sampled, name


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and of what they say; made, it has passed the comparison with transformers and no cache."""
    folder = tmp_path_factory.mktemp("models")
    launch(on_one_rank, 1, 120.0, folder, {})
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_is_that_of_transformers_on_every_layout(layout: str, models: Path, tmp_path: Path) -> None:
    tp, pp = LAYOUTS[layout]
    launch(on_ranks, tp * pp, 120.0, tmp_path, {"models": models, "layout": layout})


@ranks(1)
def test_rows_end_where_their_text_does(rank: int, tmp_path: Path) -> None:
    save_public_model("llama", tmp_path / "llama")
    with loaded("llama", tmp_path) as model:
        found = continued(model)
        eod = found[1][4]
        cut = [row[: row.index(eod) + 1] if eod in row else row for row in found]
        assert [len(row) for row in cut] != [NEW] * 4
        assert continued(model, eod=eod) == cut


@ranks(1)
def test_a_row_does_not_depend_on_its_batch(rank: int, tmp_path: Path) -> None:
    save_public_model("llama", tmp_path / "llama")
    with loaded("llama", tmp_path) as model:
        from megatron_distill.generation.generate import generate

        sampling = Sampling(seed=11)
        together = continued(model, sampling=sampling, rows=[7, 3, 9, 20])
        assert together == continued(model, sampling=sampling, rows=[7, 3, 9, 20])
        assert together != continued(model, sampling=Sampling(seed=12), rows=[7, 3, 9, 20])
        tokens, lengths = prompts()
        alone = generate(model, tokens[2:3, :1], lengths[2:3], sampling, max_new_tokens=NEW, rows=[9])
        assert alone.tokens[0, 1:].tolist() == together[2]


@ranks(1)
def test_no_ngram_twice(rank: int, tmp_path: Path) -> None:
    save_public_model("gpt2", tmp_path / "gpt2")
    with loaded("gpt2", tmp_path) as model:

        def repeats(size: int, **options: object) -> int:
            tokens, lengths = prompts()
            count = 0
            for prompt, length, new in zip(tokens.tolist(), lengths.tolist(), continued(model, **options), strict=True):
                row = prompt[:length] + new
                grams = [tuple(row[i : i + size]) for i in range(len(row) - size + 1)]
                count += len(grams) - len(set(grams))
            return count

        assert repeats(2, max_new_tokens=40) > 0
        assert repeats(2, max_new_tokens=40, sampling=Sampling(temperature=0, no_repeat_ngram=2)) == 0


@ranks(1)
def test_what_cannot_be_continued(rank: int, tmp_path: Path) -> None:
    save_public_model("gpt2", tmp_path / "gpt2")
    with loaded("gpt2", tmp_path) as model:
        from megatron_distill.generation.generate import generate

        tokens, lengths = prompts()
        with pytest.raises(ConfigError, match="together 69, must be at most 64, the positions"):
            generate(model, tokens, lengths, GREEDY, max_new_tokens=60)
        with pytest.raises(ConfigError, match="a prompt is empty"):
            generate(model, tokens, lengths * 0, GREEDY, max_new_tokens=1)


@ranks(2)
def test_a_model_goes_on_training_afterwards(rank: int, tmp_path: Path) -> None:
    """Sequence parallelism is off while it reads, and on again after."""
    with student_world(tp=2):
        from megatron_distill.config.run import Layout
        from megatron_distill.models.build import BuildOptions, build_decoder, initialise
        from megatron_distill.models.inference import reading

        shape = ModelConfig(model="palm-tiny", vocab_size=75, init_method_std=0.2).shape()
        layout = Layout(tensor=2, pipeline=1, data=1, num_microbatches=1)
        found = []
        for parallel in (True, False):
            options = BuildOptions(torch.float32, "sdpa", sequence_parallel=parallel)
            model = build_decoder(shape, (0, 1, 2, 3), layout, options)
            initialise(model, seed=1)
            tokens = torch.arange(16)[None]
            before = model(tokens, tokens, None)
            with reading(model) as inference:
                found.append(continued(inference))
            assert model.training
            assert torch.equal(model(tokens, tokens, None), before)
        assert found[0] == found[1]
