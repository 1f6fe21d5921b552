"""Attention over packed documents: each segment attends to itself alone, with no T x T mask and hardly any padding.

Registered in transformers' own attention interface, so every causal model of the library can use it unpatched. Segments of
similar length are gathered into one batched causal product. Against one masked T x T product the work falls from T^2 to the
sum of the squared segment lengths.

Shapes: T packed tokens, H query heads, K key/value heads, D head width; n segments of padded length L in a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from tunesmith.model.quiet import quiet_libraries

__all__ = ["PACKED", "Layout", "layout_of", "packed"]

PACKED = "tunesmith_packed"
_GROWTH = 1.25
"""A bucket holds segments up to this factor shorter than its longest: at most a quarter of it is padding."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Segments that are computed together."""

    source: Tensor
    """Shape (m,): places in the packed row of this bucket's m tokens."""
    target: Tensor
    """Shape (m,): their places in the padded (n * L) rows."""
    num_segments: int
    length: int
    """L, the padded length."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the segments of a packed row lie."""

    buckets: tuple[Bucket, ...]
    order: Tensor
    """Shape (T,): for each place of the packed row, its place in the concatenation of all buckets' tokens."""


def layout_of(offsets: Sequence[int], *, device: torch.device | str) -> Layout:
    """Sort segments into buckets of similar length.

    Args:
        offsets: segment borders, from 0 to T.
        device: where the index tensors live.
    """
    lengths = torch.tensor(offsets).diff()
    starts = torch.tensor(offsets[:-1])
    by_length = torch.argsort(lengths, descending=True, stable=True)
    buckets: list[Bucket] = []
    place = 0
    while place < len(by_length):
        longest = int(lengths[by_length[place]])
        members = by_length[place:][lengths[by_length[place:]] * _GROWTH >= longest]
        buckets.append(_bucket(starts[members], lengths[members], device=device))
        place += len(members)
    order = torch.empty(offsets[-1], dtype=torch.long, device=device)
    gathered = torch.cat([bucket.source for bucket in buckets])
    order[gathered] = torch.arange(offsets[-1], device=device)
    return Layout(buckets=tuple(buckets), order=order)


def _bucket(starts: Tensor, lengths: Tensor, *, device: torch.device | str) -> Bucket:
    longest = int(lengths.max())
    within = torch.arange(longest)
    inside = within[None, :] < lengths[:, None]
    source = (starts[:, None] + within[None, :])[inside]
    target = (torch.arange(len(lengths))[:, None] * longest + within[None, :])[inside]
    return Bucket(source=source.to(device), target=target.to(device), num_segments=len(lengths), length=longest)


_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def packed(model: Any, layout: Layout) -> Iterator[None]:
    """Inside the block a transformers (or PEFT) model attends within this layout's segments; after it, as it did before.

    A model whose attention cannot be exchanged is left as it is: ask `packs` of `forward` first.
    """
    own = model.config._attn_implementation
    token = _layout.set(layout)
    with quiet_libraries():
        model.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        _layout.reset(token)
        with quiet_libraries():
            model.set_attn_implementation(own)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  the interface passes it; the layout says everything
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment of one packed row.

    Args:
        module: the attention module, asked for `training` only.
        query: shape (1, H, T, D).
        key: shape (1, K, T, D).
        value: shape (1, K, T, D).
        attention_mask: ignored.
        scaling: factor on the scores, 1 / sqrt(D) when None.
        dropout: share of attention weights dropped in training.
        sliding_window: a token sees only this many tokens back, itself included.
        softcap: scores become softcap * tanh(score / softcap) (Gemma 2).

    Returns:
        Shape (1, T, H, D), and no attention weights.
    """
    layout = _layout.get()
    if layout is None:
        raise RuntimeError("packed attention outside `packed`")
    outputs = []
    for bucket in layout.buckets:
        q_nHLD, k_nKLD, v_nKLD = (_pad(tensor, bucket) for tensor in (query, key, value))
        attended_nHLD = _attend(
            q_nHLD,
            k_nKLD,
            v_nKLD,
            scaling=scaling,
            dropout=dropout if module.training else 0.0,
            window=sliding_window if sliding_window and sliding_window < bucket.length else None,
            softcap=softcap,
        )
        flat = attended_nHLD.transpose(1, 2).reshape(bucket.num_segments * bucket.length, *attended_nHLD.shape[1::2])
        outputs.append(flat if len(flat) == len(bucket.target) else flat.index_select(0, bucket.target))
    return torch.cat(outputs).index_select(0, layout.order)[None], None


def _pad(tensor_1HTD: Tensor, bucket: Bucket) -> Tensor:
    """Gather one bucket's tokens into padded rows: (1, H, T, D) -> (n, H, L, D)."""
    rows = tensor_1HTD[0].transpose(0, 1).index_select(0, bucket.source)
    if len(rows) < bucket.num_segments * bucket.length:
        padded = rows.new_zeros(bucket.num_segments * bucket.length, *rows.shape[1:])
        rows = padded.index_copy(0, bucket.target, rows)
    return rows.view(bucket.num_segments, bucket.length, *rows.shape[1:]).transpose(1, 2)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, *, scaling: float | None, dropout: float, window: int | None, softcap: float | None
) -> Tensor:
    if softcap is None and window is None:
        return functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    length = q.shape[2]
    distance = torch.arange(length, device=q.device)[:, None] - torch.arange(length, device=q.device)[None, :]
    visible = (distance >= 0) & (distance < (window or length))
    if softcap is None:
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, dropout_p=dropout, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    groups = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(groups, dim=1).transpose(2, 3) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~visible, float("-inf"))
    weights = functional.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype), p=dropout)
    return weights @ v.repeat_interleave(groups, dim=1)


AttentionInterface.register(PACKED, packed_attention)
