"""Low-rank adapters through PEFT, so that every tool that knows PEFT can load them.

Hu et al. 2021, arXiv 2106.09685: the adapted layer computes W x + (alpha / rank) B A x.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.model.quiet import quiet_libraries

__all__ = ["adapter_disabled", "add_lora", "is_adapter"]


def add_lora(model: nn.Module, *, rank: int, alpha: float, dropout: float, seed: int, rslora: bool = False) -> nn.Module:
    """Freeze a model and put an adapter on every linear layer but the head.

    All linear layers, because that is where adapters match full fine-tuning (Schulman et al. 2025, "LoRA Without Regret").
    A starts random (from `seed`), B at zero: the adapted model begins as the base itself.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rslora,
        target_modules="all-linear",
        bias="none",
    )
    with quiet_libraries():
        adapted: nn.Module = get_peft_model(model, config, autocast_adapter_dtype=True)
    return adapted


def is_adapter(model: nn.Module) -> bool:
    """Whether a model is a base with an adapter on it."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


@contextmanager
def adapter_disabled(model: Any) -> Iterator[None]:
    """Inside the block an adapted model answers as its base."""
    with model.disable_adapter():
        yield
