"""Scores of a model in a list of tasks, on all ranks that torchrun started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from megatron_distill.checkpoint.inference import (
    StoredModel,
    inference_layout,
    load_for_inference,
    load_tokenizer_of,
)
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import check_sequence
from megatron_distill.parallel.worlds import Role, job_size, open_world

from .recorder import Recorder
from .request import Evaluation
from .subject import Subject
from .suites import OTHER, expand

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WAIT_MINUTES = 120.0
"""Ranks wait that long for the first one, which may be downloading data."""


def evaluate(asked: Evaluation, subject: Subject, recorder: Recorder) -> bool:
    """Record the scores on the first rank; returns whether this is it.

    Raises:
        ConfigError: no tokenizer for the model, or a layout that it does not fit.
    """
    if asked.backend == "hf":
        _by_transformers(asked, recorder)
        return True
    stored = subject.stored
    assert stored is not None
    if asked.seq_length:
        check_sequence(stored.shape, asked.seq_length, f"--seq-length {asked.seq_length}", stored.path)
    layout = inference_layout(stored, job_size(), asked.tensor, asked.pipeline)
    tokenizer = load_tokenizer_of(stored, asked.tokenizer)
    _check_vocabulary(asked, stored, len(tokenizer))
    with _crew(asked, stored, layout) as crew, crew.led() as leads:
        if not leads:
            return False
        from .harness import HarnessModel

        length = min(stored.shape.context_length, asked.seq_length or stored.shape.context_length)
        model = HarnessModel(crew, tokenizer, max_length=length, batch_tokens=asked.batch_tokens)
        own: dict[str, Callable[[], dict[str, Any]]] = {
            "perplexity": partial(_perplexity, asked, stored, crew, _first_token(tokenizer)),
            "rouge": partial(_rouge, asked, model),
        }
        _run_all(asked, recorder, model, own)
    return True


def _check_vocabulary(asked: Evaluation, stored: StoredModel, tokens: int) -> None:
    if tokens <= stored.shape.vocab_size:
        return
    which = "with --tokenizer is given another model's" if asked.tokenizer else "that it records is another model's"
    raise ConfigError(
        f"the tokenizer has {tokens} tokens, but {stored.path} knows {stored.shape.vocab_size}: the one {which}; "
        "give the one that the model was trained with by --tokenizer"
    )


@contextmanager
def _crew(asked: Evaluation, stored: StoredModel, layout: Any) -> Iterator[Any]:
    with open_world((Role("evaluation", layout),), timeout_minutes=_WAIT_MINUTES):
        from megatron_distill.models.attention import choose_backend
        from megatron_distill.models.inference import reading

        from .crew import Crew

        dtype = _DTYPES.get(asked.precision, stored.dtype)
        half = "bf16" if dtype is torch.bfloat16 else "fp32"
        model = load_for_inference(stored, layout, dtype=dtype, attention_backend=choose_backend("auto", half))
        with reading(model) as inference:
            yield Crew(inference)


def _run_all(asked: Evaluation, recorder: Recorder, model: Any, own: dict[str, Callable[[], dict[str, Any]]]) -> None:
    from .run_tasks import run_tasks

    names = expand(list(asked.tasks))
    run_tasks(model, [n for n in names if n not in OTHER], recorder, data=asked.data, limit=asked.limit)
    for name in (n for n in names if n in OTHER):
        recorder.attempt(name, own[name])


def _first_token(tokenizer: Any) -> int | None:
    """The token with which a tokenizer begins every text, as Llama's does; such models know no other between texts."""
    ids = tokenizer("")["input_ids"]
    return ids[0] if ids and ids[0] == tokenizer.bos_token_id else None


def _perplexity(asked: Evaluation, stored: StoredModel, crew: Any, first: int | None) -> dict[str, Any]:
    from megatron_distill.data.tokenizer import load_tokenizer

    from .perplexity import perplexity, read_corpus, read_text

    if (asked.text is None) == (asked.corpus is None):
        raise ConfigError("it needs a text: give either --text FILE or --corpus PREFIX")
    path = asked.tokenizer or stored.tokenizer
    assert path is not None
    tokenizer = load_tokenizer(path)
    if asked.text is not None:
        mark = tokenizer.eod_id if first is None else first
        stream = read_text(asked.text, tokenizer, mark, begins=first is not None)
    else:
        assert asked.corpus is not None
        stream = read_corpus(asked.corpus, tokenizer, asked.max_tokens)
    return dict(
        perplexity(
            crew.call,
            stream,
            seq_length=asked.seq_length or min(2048, stored.shape.context_length),
            vocab_size=stored.shape.vocab_size,
            batch_tokens=asked.batch_tokens,
            max_tokens=asked.max_tokens,
        )
    )


def _rouge(asked: Evaluation, model: Any) -> dict[str, Any]:
    from megatron_distill.generation.sampling import Sampling

    from . import rouge

    if asked.instructions is None:
        raise ConfigError("it needs instructions: give --instructions FILE")
    examples = rouge.read_examples(asked.instructions)[: asked.limit]
    # The end of a prompt says that an answer is wanted, so the beginning is what is cut off.
    prompts = [tuple(model.tok_encode(example.prompt))[-rouge.PROMPT_TOKENS :] for example in examples]
    count = min(rouge.NEW_TOKENS, model.max_length - max(map(len, prompts)))
    if count < 1:
        raise ConfigError(f"the model has {model.max_length} positions, too few for a prompt and an answer")

    def answer(seed: int) -> list[str]:
        sampling = Sampling(seed=seed, no_repeat_ngram=rouge.NO_REPEAT)
        return model.generate(prompts, sampling, count, range(len(prompts)))

    return dict(rouge.evaluate(examples, answer, asked.seeds))


def _by_transformers(asked: Evaluation, recorder: Recorder) -> None:
    """Zero-shot tasks by the harness's own Hugging Face backend, for architectures that we do not read."""
    if not (asked.model / "config.json").is_file():
        raise ConfigError(f"--backend hf needs a Hugging Face folder, and {asked.model} has no config.json")
    if job_size() > 1:
        raise ConfigError("--backend hf runs on one rank; start it without torchrun")
    if set(expand(list(asked.tasks))) & set(OTHER):
        raise ConfigError(f"--backend hf runs zero-shot tasks only; leave out {' and '.join(OTHER)}")
    from .transformers_model import open_model

    _run_all(asked, recorder, open_model(asked), {})
