"""How a model is trained: the `train` part of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["ComputeConfig", "LoraConfig", "OptimiserConfig", "TrainConfig"]


class LoraConfig(BaseModel):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W x + scale B A x, with W frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update. 16 is enough for a few thousand rows."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale numerator. Twice the rank is the field's common choice."""
    scaling: Literal["standard", "rslora"] = "standard"
    """`standard` scales the update by alpha / rank, `rslora` by alpha / sqrt(rank), so that a high rank is not damped
    (Kalajdzievski 2023, arXiv 2312.03732)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. 0 keeps training exact and fast."""


class OptimiserConfig(BaseModel):
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) or Muon, decay and dropout, and the fall of the schedule `wsd`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Literal["adamw", "muon"] = "adamw"
    """`muon` learns more from each token when a model is made from scratch; its matrices take Muon's steps, all else AdamW's. It needs
    method `full`."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay, on matrices only; 0 for fine-tuning, 0.1 is common from scratch."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the embeddings and on what each layer's parts add; about 0.1 where the model learns few rows by heart. 0 keeps training
    exact and fast."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this 2-norm."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Memory of the mean gradient, per step. Not read by the schedule `one_cycle`, which moves it."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Memory of the squared gradient, per step; 0.95 forgets a spike sooner than Adam's own 0.999."""
    decay: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the end, in which the schedule `wsd` falls; 0.1 to 0.2 is enough (Hu et al. 2024)."""


class ComputeConfig(BaseModel):
    """How the arithmetic is done. `auto` measures or asks the machine; nothing here changes what is learned but by rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the passes. `auto`: bf16 where the hardware makes it faster, else fp32, which repeats bit for bit on a CPU."""
    compile: Literal["auto", "never", "always"] = "auto"
    """Compile the model's layers. `auto`: only where the run is long enough to win back the seconds that compiling takes."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of one matrix product. Left out: what is fastest on this machine."""
    gradient_checkpointing: Literal["auto", "never", "always"] = "auto"
    """Compute activations twice instead of keeping them, a third slower. `auto`: only where memory would not do otherwise."""


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
    schedule: Literal["cosine", "linear", "constant", "wsd", "one_cycle"] = "cosine"
    """How the learning rate goes after the warm-up: `wsd` stays at the peak and falls at the end, `one_cycle` also moves momentum."""
    warmup: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps in which the learning rate rises to its peak. Left out: 0.05, and 0.3 for `one_cycle`."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """AdamW's or Muon's settings."""
    compute: ComputeConfig = ComputeConfig()
    """Number format, threads, compiling, memory."""
    max_length: int = Field(default=512, ge=8)
    """Longest row in tokens; at most the base's context. What becomes of longer ones: data.overlong."""
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

    @model_validator(mode="after")
    def _muon_has_matrices(self) -> Self:
        if self.optimiser.name == "muon" and self.method != "full":
            raise ValueError(f"optimiser.name is `muon`, which needs method `full`; method is `{self.method}`")
        return self

    IRRELEVANT: ClassVar[Mapping[str, Callable[[TrainConfig], str | None]]] = {
        "lora": lambda config: None if config.method == "lora" else f"train.method is `{config.method}`",
        "optimiser.decay": lambda config: None if config.schedule == "wsd" else f"train.schedule is `{config.schedule}`",
        "optimiser.beta1": lambda config: None if config.schedule != "one_cycle" else "train.schedule is `one_cycle`",
    }
