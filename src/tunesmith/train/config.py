"""How a model is trained: the `train` part of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LoraConfig", "TrainConfig"]


class LoraConfig(BaseModel):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W x + (alpha / rank) B A x, with W frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update. 16 is enough for a few thousand rows."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale numerator. Twice the rank is the field's common choice."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. 0 keeps training exact and fast."""


class TrainConfig(BaseModel):
    """One optimisation run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: Literal["lora", "full"] = "lora"
    """`lora` trains small adapters and leaves the base as it is; `full` trains every weight. From scratch needs `full`."""
    lora: LoraConfig = LoraConfig()
    """Only read by method `lora`."""
    epochs: float = Field(default=3.0, gt=0, le=1000)
    """Passes over the training rows; 0.5 is half a pass."""
    max_steps: int | None = Field(default=None, ge=1)
    """Upper bound on optimiser steps, whatever the epochs."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate. Left out: a rule from the method and the model's width (docs/design/learning-rate.md)."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay (Loshchilov and Hutter 2019), on matrices only."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this 2-norm."""
    max_length: int = Field(default=512, ge=8)
    """Longest row in tokens; at most the base's context. Longer conversations are cut and counted, longer texts split."""
    batch_tokens: int = Field(default=2048, ge=16)
    """Tokens in one optimiser step, packed without padding; the longest row's, should that be more."""
    micro_batch_tokens: int | None = Field(default=None, ge=16)
    """Tokens in one forward pass, for less memory; at least the longest row's. Left out: the whole step at once."""
    evaluations: int = Field(default=10, ge=1, le=1000)
    """How many times in the run the validation loss is measured; the best weights among them are kept."""
    patience: int | None = Field(default=3, ge=1)
    """Stop after this many measurements without a better validation loss. null: never stop early."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the initial adapter or weights and of the order of rows."""

    IRRELEVANT: ClassVar[Mapping[str, Callable[[TrainConfig], str | None]]] = {
        "lora": lambda config: None if config.method == "lora" else f"train.method is `{config.method}`",
    }
