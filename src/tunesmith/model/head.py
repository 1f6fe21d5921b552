"""The last step from hidden states to a loss, a few positions at a time: the logits of a whole row never exist at once.

A row of logits is as wide as the vocabulary, so the head's temporaries would be the largest of the whole pass. The gradient with
respect to the hidden states is made together with the loss, while a chunk of logits is at hand.

Shapes: P supervised positions, D width, V vocabulary; c positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Head", "cross_entropy"]

_CHUNK_NUMBERS = 1 << 22
"""Logits of a chunk: 16 MB in fp32, little enough for a cache and enough rows for a fast product."""


@dataclass(frozen=True, slots=True)
class Head:
    """A linear layer to logits, and what some models do to these: softcap * tanh(scale * (W h + b) / softcap)."""

    linear: nn.Linear
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden_PD: Tensor) -> Tensor:
        """Shape (P, V)."""
        return _logits(hidden_PD, self.linear.weight, self.linear.bias, scale=self.scale, softcap=self.softcap)


def cross_entropy(hidden_PD: Tensor, *, head: Head, targets_P: Tensor, weights_P: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy, summed.

    Args:
        hidden_PD: what the head reads.
        head: to logits.
        targets_P: the token at each position.
        weights_P: fp32.

    Returns:
        The sum of weight times nats (a scalar with a gradient), and the nats at each position, shape (P,), in fp32, without one.
    """
    bias: Tensor | None = head.linear.bias
    if torch.is_autocast_enabled(hidden_PD.device.type):
        hidden_PD = hidden_PD.to(torch.get_autocast_dtype(hidden_PD.device.type))
    return _CrossEntropy.apply(hidden_PD, head.linear.weight, bias, targets_P, weights_P, head.scale, head.softcap)  # type: ignore[no-any-return, no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over the chunks; the backward pass only hands them on."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_PD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_P: Tensor,
        weights_P: Tensor,
        scale: float,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor]:
        precise = torch.float64 if hidden_PD.dtype == torch.float64 else torch.float32
        nll_P = torch.empty(len(hidden_PD), dtype=precise, device=hidden_PD.device)
        wanted = ctx.needs_input_grad[:3]
        dhidden_PD, dweight_VD, dbias_V = (
            torch.zeros_like(tensor) if wants and tensor is not None else None
            for wants, tensor in zip(wanted, (hidden_PD, weight_VD, bias_V), strict=True)
        )
        cast_VD = weight_VD.to(hidden_PD.dtype)
        for at in _chunks(len(hidden_PD), width=len(weight_VD)):
            logits_cV = _logits(hidden_PD[at], cast_VD, bias_V, scale=scale, softcap=softcap).to(precise)
            log_p_cV = torch.log_softmax(logits_cV, dim=-1)
            nll_P[at] = -log_p_cV.gather(1, targets_P[at, None])[:, 0]
            if not any(wanted):
                continue
            grad_cV = log_p_cV.exp_()  # softmax minus one-hot, weighted: the gradient of the logits
            grad_cV.scatter_add_(1, targets_P[at, None], grad_cV.new_full((len(grad_cV), 1), -1.0))
            grad_cV.mul_(weights_P[at, None])
            if softcap is not None:
                grad_cV.mul_(1 - (logits_cV / softcap) ** 2)
            if scale != 1.0:
                grad_cV.mul_(scale)
            grad_cV = grad_cV.to(hidden_PD.dtype)
            if dhidden_PD is not None:
                torch.mm(grad_cV, cast_VD, out=dhidden_PD[at])
            if dweight_VD is not None:
                _add_product(dweight_VD, grad_cV.t(), hidden_PD[at])
            if dbias_V is not None:
                dbias_V += grad_cV.sum(dim=0)
        ctx.gradients = [dhidden_PD, dweight_VD, dbias_V]
        ctx.mark_non_differentiable(nll_P)
        return (nll_P * weights_P).sum(), nll_P

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the head's gradients are made once; its backward pass cannot run twice")
        scaled = [None if gradient is None else gradient.mul_(upstream[0].to(gradient.dtype)) for gradient in gradients]
        return (*scaled, None, None, None, None)


def _logits(hidden_PD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, *, scale: float, softcap: float | None) -> Tensor:
    bias_V = None if bias_V is None else bias_V.to(hidden_PD.dtype)
    logits_PV = nn.functional.linear(hidden_PD, weight_VD, bias_V)
    if scale != 1.0:
        logits_PV = logits_PV * scale
    return logits_PV if softcap is None else softcap * torch.tanh(logits_PV / softcap)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _chunks(num_rows: int, *, width: int) -> Iterator[slice]:
    size = max(_CHUNK_NUMBERS // width, 32)
    for start in range(0, num_rows, size):
        yield slice(start, start + size)
