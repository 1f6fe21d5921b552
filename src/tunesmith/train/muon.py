"""Muon for the matrices inside a model, AdamW for everything else: fewer tokens for the same loss when a model is made from scratch.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest matrix whose singular
values are all about one, so that rare directions are learned as fast as common ones. Its step has the root mean square of an AdamW step
(Liu et al. 2025, arXiv 2502.16982), and so both take one learning rate. Embeddings, the head and vectors keep AdamW: their rows are not
directions of one map.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalised", "split_parameters"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that drives singular values towards one; chosen by its author for a steep rise from zero."""
_ITERATIONS = 5
_UPDATE_RMS = 0.2
"""Root mean square of a step at a learning rate of one: what AdamW's steps come to in training."""


class Muon(torch.optim.Optimizer):
    """One optimiser over two kinds of parameters.

    Args:
        matrices: two-dimensional parameters, each a map between hidden states.
        others: groups of further parameters, as `torch.optim.AdamW` takes them.
        weight_decay: decoupled, on the matrices.
        dtype: number format of the iteration; None: each parameter's own. bf16 is enough, and fast where the machine has units for it.
        momentum: memory of the mean gradient of a matrix, per step.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[dict[str, Any]],
        *,
        weight_decay: float,
        dtype: torch.dtype | None = None,
        momentum: float = 0.95,
    ) -> None:
        self._dtype = dtype
        group = {"params": matrices, "weight_decay": weight_decay, "momentum": momentum, "is_muon": True}
        super().__init__([group, *others], {"lr": 1e-3, "weight_decay": 0.0, "is_muon": False})
        self._adamw = torch.optim.AdamW(others, fused=True)
        self._adamw.state = self.state
        self._adamw.param_groups = [
            mine | theirs for mine, theirs in zip(self.param_groups[1:], self._adamw.param_groups, strict=True)
        ]
        self.param_groups = [self.param_groups[0], *self._adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss: float | None = self._adamw.step(closure)
        group = self.param_groups[0]
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for shape, parameters in by_shape.items():
            means = torch.stack([self._direction(parameter, group["momentum"]) for parameter in parameters])
            directions = orthogonalised(means.to(self._dtype or means.dtype))
            size = group["lr"] * _UPDATE_RMS * math.sqrt(max(shape))
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-size)
        return loss

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient, carried on by Nesterov's momentum."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring all singular values near one, by five rounds of a Newton-Schulz iteration.

    With M = U S V^T the result is about U V^T: its singular values lie between 0.7 and 1.2, but for those that were less than a
    thousandth of the Frobenius norm.

    Args:
        matrices: float[n, rows, columns].

    Returns:
        float[n, rows, columns], in the same number format. A matrix of zeros stays one.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-30)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def split_parameters(model: nn.Module, trained: Mapping[str, nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Divide what is trained into the matrices inside the model, and everything else."""
    around = {
        id(parameter)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
        if layer is not None
        for parameter in layer.parameters()
    }
    inside = [p for p in trained.values() if p.ndim == 2 and id(p) not in around]
    chosen = {id(p) for p in inside}
    return inside, [p for p in trained.values() if id(p) not in chosen]
