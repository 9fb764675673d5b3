"""Whether a teacher and a student of different vocabularies can be compared token by token."""

from __future__ import annotations

from megatron_distill.checkpoint.manifest import read_manifest
from megatron_distill.checkpoint.tokenizer_files import find_tokenizer
from megatron_distill.config.error import ConfigError

from .plan import RunPlan, TeacherPlan


def check_vocabularies(plan: RunPlan) -> None:
    """Check that the tokenizers of both models are known if their vocabularies differ in size.

    The plan has then seen that the ids which both use mean the same (identity.py). Tokens that only one model has are
    no outcome of the teacher. Rows that pad a vocabulary may differ in number.

    Raises:
        ConfigError: the sizes differ, and a tokenizer is not known.
    """
    assert plan.teacher is not None
    ours, theirs = plan.shape.vocab_size, plan.teacher.shape.vocab_size
    student, teacher = plan.tokenizer, _tokenizer_of(plan.teacher)
    if ours != theirs and (student is None or teacher is None):
        sizes = f"the teacher knows {theirs} tokens and the student {ours}"
        if student is None:
            raise ConfigError(f"{sizes}; give the student's --tokenizer, to see whether they mean the same")
        raise ConfigError(
            f"{sizes}, and {plan.teacher.checkpoint} keeps no tokenizer that shows whether they mean the same; take a "
            "teacher that was trained or converted with its tokenizer"
        )


def _tokenizer_of(teacher: TeacherPlan) -> str | None:
    if not teacher.checkpoint.exists():  # a dry run, whose teacher is what the student starts from
        return None
    return find_tokenizer(teacher.checkpoint, read_manifest(teacher.checkpoint))
