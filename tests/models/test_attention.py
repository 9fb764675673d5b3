"""Which attention kernel runs where."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from megatron_distill.config.error import ConfigError
from megatron_distill.models import attention
from megatron_distill.parallel import device


def choose(
    monkeypatch: pytest.MonkeyPatch, asked: str, installed: set[str], gpu: bool = True, precision: str = "bf16"
) -> str:
    monkeypatch.setattr(device, "is_cuda", lambda: gpu)
    monkeypatch.setattr(attention, "_is_installed", installed.__contains__)
    return attention.choose_backend(asked, precision)


@pytest.mark.parametrize(
    ("installed", "gpu", "precision", "wanted"),
    [
        ({"flash_attn", "transformer_engine"}, True, "bf16", "flash"),
        ({"transformer_engine"}, True, "bf16", "te"),
        (set(), True, "bf16", "sdpa"),
        ({"flash_attn"}, True, "fp32", "sdpa"),  # its kernels know half precision only
        ({"flash_attn"}, False, "bf16", "sdpa"),
    ],
)
def test_auto_takes_the_best_that_can_run(
    installed: set[str], gpu: bool, precision: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose(monkeypatch, "auto", installed, gpu, precision) == wanted


@pytest.mark.parametrize(
    ("installed", "gpu", "precision", "says"),
    [
        (set(), True, "bf16", "flash needs the package flash_attn"),
        ({"flash_attn"}, True, "fp32", "flash needs --precision bf16"),
        ({"flash_attn"}, False, "bf16", "flash needs a GPU"),
    ],
)
def test_what_cannot_run_is_said(
    installed: set[str], gpu: bool, precision: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=says):
        choose(monkeypatch, "flash", installed, gpu, precision)


CORE_TE = "megatron.core.extensions.transformer_engine"


def signature_in_core(name: str) -> inspect.Signature:
    """The parameters of a method of TEDotProductAttention as megatron-core has it, whose module needs the package."""
    found = importlib.util.find_spec(CORE_TE)
    assert found is not None and found.origin is not None
    tree = ast.parse(Path(found.origin).read_text())
    kernel = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "TEDotProductAttention")
    method = next(n for n in kernel.body if isinstance(n, ast.FunctionDef) and n.name == name)
    names, defaults = [a.arg for a in method.args.args], len(method.args.defaults)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = [inspect.Parameter(n, kind) for n in names[: len(names) - defaults]]
    return inspect.Signature([*required, *(inspect.Parameter(n, kind, default=None) for n in names[-defaults:])])


def test_transformer_engine_is_called_as_megatron_core_defines_it(monkeypatch: pytest.MonkeyPatch) -> None:
    initialise, forward = signature_in_core("__init__"), signature_in_core("forward")

    class Kernel(torch.nn.Module):
        """Refuses arguments that the real one refuses, and computes what it computes."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__()
            initialise.bind(self, *args, **kwargs)

        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            given = forward.bind(self, *args, **kwargs).arguments
            assert given["attn_mask_type"].name == "causal"
            q, k, v = (given[name].permute(1, 2, 0, 3) for name in ("query", "key", "value"))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True).permute(2, 0, 1, 3).flatten(2)

    stub = types.ModuleType(CORE_TE)
    stub.TEDotProductAttention = Kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, CORE_TE, stub)
    q, k, v = torch.randn(3, 8, 2, 4, 16, generator=torch.Generator().manual_seed(0))
    found, wanted = (attention.CausalAttention(None, backend, 1)(q, k, v) for backend in ("te", "sdpa"))
    torch.testing.assert_close(found, wanted)
