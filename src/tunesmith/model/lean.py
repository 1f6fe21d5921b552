"""A decoder of our own for the Llama family: the same products as the library's layers, and nothing between them that can be spared.

A step of one token through a small model spends as long between the products as in them: casts, masks, cache objects, one call for each
projection. Here queries, keys and values are one product, gate and up another, rotary angles are taken once for all layers, and keys and
values go straight into their slots. Which models are known is decided in `lean_shapes`; every other one is read as before.

Shapes: T tokens of a step, D width of the model; H query heads, K key/value heads, E head width; P places whose logits are wanted, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.model.kv_slots import KeyValueSlots, Rules, Step, attend_alone, attend_in_slots
from tunesmith.model.lean_products import Product

__all__ = ["LeanDecoder", "LeanLayer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeanLayer:
    """One layer: its products, and the weights of its norms."""

    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    first_norm: Any
    second_norm: Any
    q_norm: Any = None
    """Over each head (Qwen3); None where queries and keys are taken as they are."""
    k_norm: Any = None
    rules: Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class LeanDecoder:
    """All layers, and what stands before and behind them."""

    embed: Callable[[Tensor], Tensor]
    rotary: Callable[..., tuple[Tensor, Tensor]]
    """The model's own, so that its kind of scaling is its own matter."""
    layers: Sequence[LeanLayer]
    last_norm: Any
    head: Product
    num_heads: int
    num_kv_heads: int
    head_width: int

    def read(self, slots: KeyValueSlots, step: Step, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Logits (P, V) at the places; keys and values of all tokens are in their slots afterwards."""
        x_TD = self.embed(torch.tensor([list(tokens)]))[0]
        cos, sin = self._angles(x_TD, step)
        for index, layer in enumerate(self.layers):
            q_THE, k_TKE, v_TKE = self._projected(layer, _normed(x_TD, layer.first_norm), cos, sin)
            attended_THE = _attended(slots, step, index, q_THE, k_TKE, v_TKE, rules=layer.rules)
            x_TD = x_TD + layer.out(attended_THE.flatten(1))
            gate_up = layer.gate_up(_normed(x_TD, layer.second_norm))
            gate, up = gate_up.chunk(2, dim=-1)
            x_TD = x_TD + layer.down(functional.silu(gate).mul_(up))
        if len(places) != len(x_TD):
            x_TD = x_TD[torch.tensor(list(places), dtype=torch.long)]
        return self.head(_normed(x_TD, self.last_norm))

    def _angles(self, x_TD: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, 1, 2, E / 2), the first half of the sines negative: a half turn swaps the halves and negates one."""
        cos, sin = self.rotary(x_TD[None], position_ids=step.positions())
        shape = (len(x_TD), 1, 2, self.head_width // 2)
        signed = sin[0].view(shape) * sin.new_tensor([-1.0, 1.0])[:, None]
        return cos[0].view(shape), signed

    def _projected(self, layer: LeanLayer, x_TD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (T, H, E), keys and values (T, K, E), of which queries and keys know their positions."""
        qkv = layer.qkv(x_TD).view(len(x_TD), -1, self.head_width)
        turned = qkv[:, : self.num_heads + self.num_kv_heads]
        if layer.q_norm is not None:
            q_THE = _normed(turned[:, : self.num_heads], layer.q_norm)
            turned = torch.cat([q_THE, _normed(turned[:, self.num_heads :], layer.k_norm)], dim=1)
        halves = turned.unflatten(-1, (2, -1))
        turned = torch.addcmul(halves * cos, halves.flip(2), sin).flatten(2)
        return turned[:, : self.num_heads], turned[:, self.num_heads :], qkv[:, self.num_heads + self.num_kv_heads :]


def _attended(
    slots: KeyValueSlots, step: Step, index: int, q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, *, rules: Rules
) -> Tensor:
    """Shape (T, H, E)."""
    if len(q_THE) == 1 and step.num_writing:
        return attend_alone(q_THE, k_TKE, v_TKE, *slots[index], past=step.parts[0].past, rules=rules)
    k_KTE, v_KTE = k_TKE.transpose(0, 1), v_TKE.transpose(0, 1)
    keys_SKCE, values_SKCE = slots.layer(index, like_keys=k_KTE[None], like_values=v_KTE[None])
    return attend_in_slots(q_THE.transpose(0, 1), k_KTE, v_KTE, keys_SKCE, values_SKCE, step=step, rules=rules)


def _normed(x: Tensor, norm: Any) -> Tensor:
    """RMSNorm over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467), computed in fp32 as the library does."""
    weight: Tensor = norm._parameters["weight"]
    width, eps = x.shape[-1], norm.variance_epsilon
    if x.numel() == width:  # one row: its norm is one number, and times a number in fp32 is one operation in any format
        size = float(torch.linalg.vector_norm(x, dtype=torch.float32))
        return weight * (x * (1.0 / math.sqrt(size * size / width + eps)))
    return weight * functional.rms_norm(x.float(), (width,), None, eps).to(x.dtype)
