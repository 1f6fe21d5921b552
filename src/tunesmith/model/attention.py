"""Attention over packed documents: each attends to itself alone, with no T x T mask and hardly any padding.

Registered in transformers' own attention interface, so every causal model of the library can use it unpatched. Against one masked
T x T product the work falls from T^2 to half the sum of the squared document lengths. What the backward pass needs of a long document
is computed again rather than kept (Rabe and Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv 2205.14135).

Shapes: T packed tokens; H query heads, K key/value heads, G = H / K; D head width; B = n * K documents times key heads of a bucket,
L their padded length. Q and S are stretches of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from tunesmith.model.flash import agrees, flash_attention
from tunesmith.model.layout import BLOCK, Heads, Layout, Rows, layout_of
from tunesmith.model.quiet import quiet_libraries

__all__ = ["PACKED", "current_layout", "packed", "packed_attention"]

PACKED = "tunesmith_packed"
_KEEP_UP_TO = 512
"""Attention weights of documents up to this length are kept for the backward pass; of longer ones they would fill the memory."""


class _Settings(NamedTuple):
    scaling: float
    window: int | None
    softcap: float | None
    dropout: float = 0.0


_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def packed(model: Any, layout: Layout) -> Iterator[None]:
    """Inside the block a transformers model attends within this layout's documents; after it, as it did before.

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


def current_layout() -> Layout | None:
    """The layout of the pass in which this is called; None outside `packed`."""
    return _layout.get()


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
    """Causal attention inside each document of one packed row.

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
    settings = _Settings(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
        dropout=dropout if module.training else 0.0,
    )
    q_THD, k_TKD, v_TKD = (tensor.to(value.dtype)[0].transpose(0, 1) for tensor in (query, key, value))
    may_be_fast = q_THD.is_cuda and softcap is None and not settings.dropout
    if may_be_fast and agrees(flash_attention, _blocks_of_documents, query=q_THD, key=k_TKD, window=sliding_window):
        return flash_attention(q_THD, k_TKD, v_TKD, layout.offsets, sliding_window, scaling=settings.scaling)[None], None
    return _blockwise(q_THD, k_TKD, v_TKD, layout=layout, settings=settings)[None], None


def _blockwise(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, *, layout: Layout, settings: _Settings) -> Tensor:
    """Attention by buckets and blocks, on any device: shape (T, H, D)."""
    heads = layout.heads(q_THD.shape[1], k_TKD.shape[1])
    rows = [tensor.flatten(0, 1) for tensor in (q_THD, k_TKD, v_TKD)]
    # Dropout is rare in today's models, and drawing it twice alike would need its own generator: torch differentiates that path.
    apply: Any = _Attend.apply
    attended = _forward(*rows, heads=heads, settings=settings)[0] if settings.dropout else apply(*rows, heads, settings)
    return attended.view(*q_THD.shape[:2], -1)


def _blocks_of_documents(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, offsets: Sequence[int], window: int | None) -> Tensor:
    """What the GPU's kernel is held against."""
    settings = _Settings(scaling=q_THD.shape[-1] ** -0.5, window=window, softcap=None)
    return _blockwise(q_THD, k_TKD, v_TKD, layout=layout_of(offsets, device=q_THD.device), settings=settings)


class _Attend(torch.autograd.Function):
    """From rows (T * H, D), (T * K, D), (T * K, D) to rows (T * H, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: Heads, settings: _Settings) -> Tensor:
        attended, saved = _forward(query, key, value, heads=heads, settings=settings)
        ctx.heads, ctx.settings = heads, settings
        ctx.save_for_backward(*(tensor for each in saved for tensor in each))
        return attended

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        parts = []
        for rows in ctx.heads.buckets:
            q, k, v = next(saved), next(saved), next(saved)
            kept = [next(saved) for _ in _blocks(rows.length)] if _is_kept(rows, ctx.settings) else None
            out = upstream[0].index_select(0, rows.queries)
            if len(rows.padding):
                out.index_fill_(0, rows.padding, 0.0)
            out = out.view(rows.num_batches, -1, out.shape[-1])
            parts.append(_gradients(q, k, v, out, kept=kept, group=ctx.heads.group, settings=ctx.settings))
        orders = (ctx.heads.query_order, ctx.heads.key_order, ctx.heads.key_order)
        grads = (_back([part[i] for part in parts], order) for i, order in enumerate(orders))
        return (*grads, None, None)


def _forward(
    query: Tensor, key: Tensor, value: Tensor, *, heads: Heads, settings: _Settings
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The attended rows, and for each bucket what a backward pass needs: queries, keys, values and perhaps weights."""
    outputs, saved = [], []
    for rows in heads.buckets:
        q_BQD, k_BLD, v_BLD = _gather(query, key, value, rows=rows, settings=settings)
        pieces, kept = [], []
        for start, end in _blocks(rows.length):
            first = _first_key(start, settings)
            weights_BQS, _ = _weights(q_BQD, k_BLD, start=start, end=end, group=heads.group, settings=settings)
            kept.append(weights_BQS)
            if settings.dropout:
                weights_BQS = functional.dropout(weights_BQS, p=settings.dropout)
            pieces.append(torch.bmm(weights_BQS, v_BLD[:, first:end]))
        outputs.append(torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0])
        saved.append((q_BQD, k_BLD, v_BLD, *(kept if _is_kept(rows, settings) else ())))
    return _back(outputs, heads.query_order), saved


def _gather(query: Tensor, key: Tensor, value: Tensor, *, rows: Rows, settings: _Settings) -> list[Tensor]:
    """One bucket's queries (scaled), keys and values: (B, G * L, D), (B, L, D), (B, L, D)."""
    picked = [query.index_select(0, rows.queries), key.index_select(0, rows.keys), value.index_select(0, rows.keys)]
    picked[0].mul_(settings.scaling)
    return [tensor.view(rows.num_batches, -1, tensor.shape[-1]) for tensor in picked]


def _weights(
    q_BQD: Tensor, k_BLD: Tensor, *, start: int, end: int, group: int, settings: _Settings
) -> tuple[Tensor, Tensor | None]:
    """Attention weights of one block of queries, shape (B, G * (end - start), S), and its capped scores if there is a cap."""
    first = _first_key(start, settings)
    scores_BQS = torch.bmm(q_BQD[:, group * start : group * end], k_BLD[:, first:end].transpose(1, 2))
    capped = None
    if settings.softcap is not None:
        scores_BQS = capped = settings.softcap * torch.tanh(scores_BQS / settings.softcap)
        scores_BQS = scores_BQS.clone()
    by_head = scores_BQS.view(scores_BQS.shape[0], group, end - start, end - first)
    if settings.window is None:
        by_head[..., start - first :].add_(_mask(end - start, end - start, None, scores_BQS.dtype, scores_BQS.device))
    else:
        by_head.add_(_mask(end - start, end - first, settings.window, scores_BQS.dtype, scores_BQS.device))
    precise = torch.float32 if scores_BQS.dtype in (torch.bfloat16, torch.float16) else scores_BQS.dtype
    return torch.softmax(scores_BQS, dim=-1, dtype=precise).to(scores_BQS.dtype), capped


def _gradients(
    q_BQD: Tensor, k_BLD: Tensor, v_BLD: Tensor, out_BQD: Tensor, *, kept: list[Tensor] | None, group: int, settings: _Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one bucket's queries, keys and values from that of its output."""
    dq_BQD = torch.empty_like(q_BQD)
    dk_BLD, dv_BLD = _Sum(k_BLD), _Sum(v_BLD)
    for i, (start, end) in reversed(list(enumerate(_blocks(k_BLD.shape[1])))):  # the last sees most keys: the sums begin with it
        first, at = _first_key(start, settings), slice(group * start, group * end)
        if kept is not None:
            weights, capped = kept[i], None
        else:
            weights, capped = _weights(q_BQD, k_BLD, start=start, end=end, group=group, settings=settings)
        dv_BLD.add(torch.bmm(weights.transpose(1, 2), out_BQD[:, at]), first=first, end=end)
        dweights = torch.bmm(out_BQD[:, at], v_BLD[:, first:end].transpose(1, 2))
        dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
        if capped is not None and settings.softcap is not None:
            dscores.mul_(1 - (capped / settings.softcap) ** 2)
        dq_BQD[:, at] = torch.bmm(dscores, k_BLD[:, first:end])
        dk_BLD.add(torch.bmm(dscores.transpose(1, 2), q_BQD[:, at]), first=first, end=end)
    return dq_BQD.mul_(settings.scaling), dk_BLD.total, dv_BLD.total


class _Sum:
    """A sum over stretches of positions, shape (B, L, D). A stretch that covers all of them begins it without zeros to add to."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._total: Tensor | None = None

    @property
    def total(self) -> Tensor:
        return torch.zeros_like(self._like) if self._total is None else self._total

    def add(self, part: Tensor, *, first: int, end: int) -> None:
        if self._total is None:
            if part.shape == self._like.shape:
                self._total = part
                return
            self._total = torch.zeros_like(self._like)
        self._total[:, first:end].add_(part)


def _is_kept(rows: Rows, settings: _Settings) -> bool:
    return rows.length <= _KEEP_UP_TO and settings.softcap is None


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _first_key(start: int, settings: _Settings) -> int:
    """The first key that the query at `start` may see."""
    return 0 if settings.window is None else max(0, start - settings.window + 1)


@lru_cache(maxsize=256)
def _mask(num_queries: int, num_keys: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where the last `num_queries` of `num_keys` positions may look, minus infinity elsewhere."""
    queries = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    keys = torch.arange(num_keys, device=device)[None, :]
    hidden = (keys > queries) | (keys <= queries - (window or num_keys + 1))
    return torch.zeros(num_queries, num_keys, dtype=dtype, device=device).masked_fill(hidden, float("-inf"))


def _back(buckets: list[Tensor], order: Tensor) -> Tensor:
    """Bring the rows of all buckets back into the order of the packed row."""
    flat = [bucket.flatten(0, 1) for bucket in buckets]
    return (torch.cat(flat) if len(flat) > 1 else flat[0]).index_select(0, order)


AttentionInterface.register(PACKED, packed_attention)
