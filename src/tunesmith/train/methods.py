"""What can be trained how: the one place that knows a method by its name.

A method is a loss and a way of making parameters trainable; the loop, the checkpoints and the plan are the same for all. To add
one, write its two functions, put them into `METHODS`, and allow its name in `TrainConfig.method`.

What is learned is the data's choice and not the method's: supervised fine-tuning weighs the tokens of the answers by their
message's weight, continued pre-training and training from scratch weigh every token of a text 1, and all are `summed_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from tunesmith.data.pack import Encoded
from tunesmith.model.forward import SummedLoss, summed_loss
from tunesmith.model.lora import add_lora
from tunesmith.model.soft_prompt import add_soft_prompt
from tunesmith.records import TokenBatch
from tunesmith.train.config import TrainConfig

__all__ = ["METHODS", "Loss", "Method", "soft_prompt"]

_PROMPT_RATE = 0.3
"""Of a soft prompt, as a multiple of the size of the vectors that it begins as (docs/design/learning-rate.md)."""
_FREQUENT = 500
"""Tokens taught most often, from which a soft prompt's first ones are drawn."""


class Loss(Protocol):
    """From a model and a packed row to a loss, summed and not averaged, and the weight by which the whole step divides it."""

    def __call__(self, model: nn.Module, batch: TokenBatch, *, device: str) -> SummedLoss: ...


class Method(NamedTuple):
    """A way of training."""

    loss: Loss
    make_trainable: Callable[[nn.Module, TrainConfig], nn.Module]
    """From base or random weights to a model in which what is to be learned, and nothing else, requires a gradient."""
    rate_factor: Callable[[TrainConfig], float]
    """The default learning rate, as a multiple of full fine-tuning's (docs/design/learning-rate.md)."""
    own_rate: Callable[[nn.Module], float] | None = None
    """A default learning rate that hangs on what is to be learned and not on the model's width; None: the rule above."""


def _with_adapter(model: nn.Module, config: TrainConfig) -> nn.Module:
    lora = config.lora
    is_rank_stabilised = lora.scaling == "rslora"
    return add_lora(model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, seed=config.seed, rslora=is_rank_stabilised)


def _in_full(model: nn.Module, config: TrainConfig) -> nn.Module:
    """Every weight, kept in fp32: small updates vanish in bf16. On a GPU the passes still compute in bf16."""
    torch.manual_seed(config.seed)
    return model.float().requires_grad_(True)


def _adapter_rate(config: TrainConfig) -> float:
    """Ten; for rsLoRA less by how much its scale is larger, sqrt(rank), so that the first updates are of the same size."""
    return 10.0 if config.lora.scaling == "standard" else 10.0 / math.sqrt(config.lora.rank)


METHODS: Mapping[str, Method] = {
    "full": Method(loss=summed_loss, make_trainable=_in_full, rate_factor=lambda _: 1.0),
    "lora": Method(loss=summed_loss, make_trainable=_with_adapter, rate_factor=_adapter_rate),
}


def soft_prompt(encoded: Encoded, *, num_tokens: int) -> Method:
    """A prompt of learned vectors, with the base frozen. No `train.method`: it is an arm of the evaluation, and trained for that alone.

    It begins as tokens drawn by the seed from those that the rows teach most often, which Lester et al. 2021 (section 3.2) found
    better than random vectors.

    Args:
        encoded: the training rows, something of which is learned.
        num_tokens: vectors in the prompt.
    """

    def with_prompt(model: nn.Module, config: TrainConfig) -> nn.Module:
        counts = np.bincount(encoded.targets[encoded.targets >= 0])
        frequent = np.argsort(-counts, kind="stable")[: min(_FREQUENT, np.count_nonzero(counts))]
        drawn = np.resize(np.random.default_rng(config.seed).permutation(frequent), num_tokens)
        return add_soft_prompt(model, tokens=drawn.tolist())

    return Method(loss=summed_loss, make_trainable=with_prompt, rate_factor=lambda _: 1.0, own_rate=_prompt_rate)


def _prompt_rate(model: nn.Module) -> float:
    """A share of the root mean square of the vectors, since a step of AdamW moves each number by about the rate."""
    (vectors,) = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return _PROMPT_RATE * float(vectors.detach().square().mean().sqrt())
