"""How proofs measure: plain transformers as the other side of each comparison, relative differences, and what rounding may do.

Shapes: T tokens of a document, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model.machine import Machine, this_machine
from tunesmith.model.reference import own_attention
from tunesmith.records import TokenBatch

__all__ = [
    "EXACT",
    "FP32",
    "Measured",
    "difference",
    "documents",
    "gradient_difference",
    "gradients",
    "plain",
    "plain_backward",
    "proving_machine",
    "rounding",
    "without_dropout",
]

EXACT = 0.0
"""Of comparisons bit for bit."""

FP32 = 1e-5
"""Allowed between two orders of the same sums in fp32, relative."""
_BF16 = 5e-2
_SMALLEST_SHARE = 0.05


def rounding(model: nn.Module, batch: TokenBatch, *, device: str) -> float:
    """The relative difference that the order of sums may make in this model.

    fp32 keeps 6e-8 of a number, and over the layers it becomes some 1e-6: 1e-5 is allowed, or four times what lies between two ways
    in which transformers itself computes the same, but never more than 1e-4. A GPU computes in bf16, which keeps 4e-3.
    """
    if device != "cpu" or any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        return _BF16
    with without_dropout(model):
        first, second = (plain(model, batch, device=device, attention=name).gradients for name in ("eager", "sdpa"))
    return min(max(FP32, 4 * gradient_difference(second, first)), 10 * FP32)


def proving_machine() -> Machine:
    """A CPU proves in fp32, where only the order of sums can make a difference."""
    machine = this_machine()
    return replace(machine, dtype=torch.float32) if machine.device == "cpu" else machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Loss and gradients of a batch, summed over its supervised tokens."""

    loss: float
    each: tuple[float, ...]
    """Unweighted loss of each document that has one."""
    gradients: Mapping[str, Tensor]
    weight: float
    """Sum of the weights of the supervised tokens."""


def plain(model: nn.Module, batch: TokenBatch, *, device: str, attention: str = "eager") -> Measured:
    """The other side of most comparisons: each document alone, transformers' own attention, the whole head, cross-entropy."""
    loss, each = plain_backward(model, batch, device=device, attention=attention)
    weight = float(batch.weights.sum(dtype="float64"))
    return Measured(loss=loss, each=each, gradients=gradients(model), weight=weight)


def plain_backward(
    model: nn.Module, batch: TokenBatch, *, device: str, attention: str = "eager"
) -> tuple[float, tuple[float, ...]]:
    """The same, with the gradients left in the model. Returns the weighted loss, and each document's unweighted one."""
    loss, each = 0.0, []
    model.zero_grad()
    with own_attention(model, attention):
        for document in documents(batch):
            if not document.num_supervised:
                continue
            tokens_T, targets_T = (torch.from_numpy(a.astype(np.int64)).to(device) for a in (document.tokens, document.targets))
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device == "cuda"):
                logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0]
            nll_T = functional.cross_entropy(logits_TV.float(), targets_T, reduction="none", ignore_index=-100)
            weighted = (nll_T * torch.from_numpy(document.weights).to(device)).sum()
            weighted.backward()
            loss += float(weighted.detach())
            each.append(float(nll_T.detach().sum()))
    return loss, tuple(each)


def documents(batch: TokenBatch) -> list[TokenBatch]:
    """Each document of a batch as a batch of its own."""
    return [
        TokenBatch(
            tokens=batch.tokens[a:b],
            targets=batch.targets[a:b],
            weights=batch.weights[a:b],
            offsets=np.array([0, b - a], np.int32),
            record_ids=(record_id,),
        )
        for record_id, (a, b) in zip(batch.record_ids, pairwise(batch.offsets.tolist()), strict=True)
    ]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Take the gradients out of a model."""
    found = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def difference(found: Tensor, expected: Tensor) -> float:
    """Size of the difference, relative to how far the expected values spread around their mean."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    spread = (expected - expected.mean()).norm() if expected.numel() > 1 else expected.norm()
    return _ratio(float((found - expected).norm()), float(spread))


def gradient_difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The worst relative difference of a tensor.

    Some gradients are zero in theory (a bias on the keys moves all scores alike) and noise in practice: a tensor whose gradient is
    a small part of the whole is measured against that part.
    """
    if found.keys() != expected.keys():
        return math.inf
    sizes = {name: float(tensor.double().norm()) for name, tensor in expected.items()}
    least = _SMALLEST_SHARE * math.hypot(*sizes.values())
    return max(
        _ratio(float((found[name].double() - expected[name].double()).norm()), max(sizes[name], least)) for name in expected
    )


def _ratio(part: float, whole: float) -> float:
    if not math.isfinite(part):
        return math.inf
    return part / whole if whole else (math.inf if part else 0.0)


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Inside the block the model is in training mode, and every share that it would drop is zero.

    Architectures keep these shares in `nn.Dropout`, in numbers of their modules and in the configuration.
    """
    was_training = model.training
    holders = [*model.modules(), model.config]
    shares = [
        (holder, name, value)
        for holder in holders
        for name, value in vars(holder).items()
        if isinstance(value, float) and value and ("drop" in name or (name == "p" and isinstance(holder, nn.Dropout)))
    ]
    for holder, name, _ in shares:
        setattr(holder, name, 0.0)
    model.train()
    try:
        yield
    finally:
        for holder, name, value in shares:
            setattr(holder, name, value)
        model.train(was_training)
