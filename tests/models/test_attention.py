"""Which attention kernel runs where."""

from __future__ import annotations

import pytest

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
