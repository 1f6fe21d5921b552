"""Attention over packed documents by the GPU's own kernel for sequences of different lengths.

torch's `varlen_attn` (FlashAttention, Dao 2023, arXiv 2307.08691) exists on some GPUs, in some releases, for some head widths. Rather than
keep a list of those, it is tried: a small packed row, forward and backward, must give what the blocks of `attention.py` give.

Shapes: T packed tokens, H query heads, K key/value heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["agrees", "flash_attention"]

Attention = Callable[[Tensor, Tensor, Tensor, Sequence[int], int | None], Tensor]
"""From queries (T, H, D), keys and values (T, K, D), borders of documents and a window to (T, H, D)."""

_TOLERANCE = 0.02
"""Of the spread of what is compared; bf16 has eight bits."""


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Sequence[int], window: int | None, *, scaling: float | None = None
) -> Tensor:
    """Causal attention inside each document: (T, H, D), (T, K, D), (T, K, D) to (T, H, D)."""
    from torch.nn.attention.varlen import varlen_attn

    borders = torch.tensor(offsets, dtype=torch.int32, device=query.device)
    longest = int(borders.diff().max())
    back = -1 if window is None else window - 1
    attended: Any = varlen_attn(
        query,
        key,
        value,
        borders,
        borders,
        longest,
        longest,
        scale=scaling,
        window_size=(back, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended  # type: ignore[no-any-return]


def agrees(fast: Attention, exact: Attention, *, query: Tensor, key: Tensor, window: int | None) -> bool:
    """Whether two ways give the same output and gradients for tensors of this device, format and shape; tried once for each."""
    return _agrees(fast, exact, query.device, query.dtype, query.shape[1], key.shape[1], query.shape[2], window is not None)


@lru_cache(maxsize=64)
def _agrees(
    fast: Attention,
    exact: Attention,
    device: torch.device,
    dtype: torch.dtype,
    num_heads: int,
    num_kv_heads: int,
    width: int,
    is_windowed: bool,
) -> bool:
    offsets, window = [0, 37, 40, 90], 7 if is_windowed else None
    generator = torch.Generator().manual_seed(0)
    shapes = [(90, heads, width) for heads in (num_heads, num_kv_heads, num_kv_heads, num_heads)]
    query, key, value, upstream = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    try:
        with torch.enable_grad():
            results = []
            for attend in (fast, exact):
                output = attend(query, key, value, offsets, window)
                results.append([output, *torch.autograd.grad(output, inputs, upstream)])
    except (ImportError, RuntimeError, TypeError, NotImplementedError):  # as many kinds as there are reasons
        return False
    return all(
        bool((ours.float() - theirs.float()).abs().max() <= _TOLERANCE * theirs.float().abs().max())
        for ours, theirs in zip(*results, strict=True)
    )
