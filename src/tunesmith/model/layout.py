"""Where the documents of a packed row lie, and how their attention is computed together.

Documents of similar length are gathered into buckets. A bucket is one batch of padded documents, hardly padded: its shortest is at
most a fifth shorter than its longest.

Shapes: T packed tokens; H query heads, K key/value heads, G = H / K query heads that share one of them; n documents of padded
length L in a bucket. A row is one head of one token: row t * H + h of the queries, row t * K + k of the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["BLOCK", "Bucket", "Layout", "Rows", "layout_of"]

BLOCK = 64
"""Queries that are computed together. A block sees the keys up to its end, so half of the square is never touched."""
_GROWTH = 1.25
"""A bucket holds documents up to this factor shorter than its longest: at most a fifth of it is padding."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Documents that are computed together."""

    places_nL: Tensor
    """For each position its place in the packed row; padding repeats the document's first token."""
    is_token_nL: Tensor
    """False where a position is padding."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One bucket for one pair (H, K)."""

    queries: Tensor
    """Shape (n * K * G * L,): by document, key head, block, query head, position; so a block is one contiguous stretch."""
    keys: Tensor
    """Shape (n * K * L,)."""
    padding: Tensor
    """The places in `queries` that are padding."""
    num_batches: int
    """n * K."""
    length: int
    """L."""


@dataclass(frozen=True, slots=True)
class Heads:
    """All buckets for one pair (H, K), and the way back into the packed row."""

    buckets: tuple[Rows, ...]
    group: int
    """G."""
    query_order: Tensor
    """Shape (T * H,): each query row's place in the concatenation of all buckets' queries."""
    key_order: Tensor
    """Shape (T * K,): the same for the keys."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The buckets of a packed row."""

    buckets: tuple[Bucket, ...]
    offsets: tuple[int, ...]
    _heads: dict[tuple[int, int], Heads] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        return self.offsets[-1]

    def heads(self, num_heads: int, num_kv_heads: int) -> Heads:
        """The rows of a layer with this many heads; made once for all layers."""
        key = (num_heads, num_kv_heads)
        if key not in self._heads:
            self._heads[key] = _heads_of(self, num_heads=num_heads, num_kv_heads=num_kv_heads)
        return self._heads[key]


def layout_of(offsets: Sequence[int], *, device: torch.device | str) -> Layout:
    """Sort documents into buckets of similar length.

    Args:
        offsets: borders of the documents, from 0 to T.
        device: where the index tensors live.
    """
    lengths = torch.tensor(offsets).diff()
    starts = torch.tensor(offsets[:-1])
    by_length = torch.argsort(lengths, descending=True, stable=True)
    by_length = by_length[lengths[by_length] > 0]
    buckets: list[Bucket] = []
    place = 0
    while place < len(by_length):
        longest = int(lengths[by_length[place]])
        members = by_length[place:][lengths[by_length[place:]] * _GROWTH >= longest]
        within_L = torch.arange(longest)
        is_token_nL = within_L < lengths[members, None]
        places_nL = starts[members, None] + torch.where(is_token_nL, within_L, 0)
        buckets.append(Bucket(places_nL=places_nL.to(device), is_token_nL=is_token_nL.to(device)))
        place += len(members)
    return Layout(buckets=tuple(buckets), offsets=tuple(map(int, offsets)))


def _heads_of(layout: Layout, *, num_heads: int, num_kv_heads: int) -> Heads:
    group = num_heads // num_kv_heads
    rows, query_orders, key_orders = [], [], []
    num_query_rows = num_key_rows = 0
    for bucket in layout.buckets:
        device, (num_documents, length) = bucket.places_nL.device, bucket.places_nL.shape
        heads_KG = torch.arange(num_heads, device=device).view(num_kv_heads, group)
        queries_nKGL = bucket.places_nL[:, None, None] * num_heads + heads_KG[None, :, :, None]
        is_token_nKGL = bucket.is_token_nL[:, None, None].expand_as(queries_nKGL)
        queries, is_token = _by_block(queries_nKGL), _by_block(is_token_nKGL)
        keys_nKL = bucket.places_nL[:, None] * num_kv_heads + torch.arange(num_kv_heads, device=device)[None, :, None]
        keys, is_key = keys_nKL.flatten(), bucket.is_token_nL[:, None].expand_as(keys_nKL).flatten()
        rows.append(
            Rows(
                queries=queries,
                keys=keys,
                padding=(~is_token).nonzero()[:, 0],
                num_batches=num_documents * num_kv_heads,
                length=length,
            )
        )
        query_orders.append((queries[is_token], is_token.nonzero()[:, 0] + num_query_rows))
        key_orders.append((keys[is_key], is_key.nonzero()[:, 0] + num_key_rows))
        num_query_rows, num_key_rows = num_query_rows + len(queries), num_key_rows + len(keys)
    return Heads(
        buckets=tuple(rows),
        group=group,
        query_order=_inverse(query_orders, size=layout.num_tokens * num_heads),
        key_order=_inverse(key_orders, size=layout.num_tokens * num_kv_heads),
    )


def _by_block(rows_nKGL: Tensor) -> Tensor:
    """Flatten so that the queries of one block lie together, all heads of the group side by side."""
    blocks = [block.flatten(2) for block in rows_nKGL.split(BLOCK, dim=3)]
    return torch.cat(blocks, dim=2).flatten()


def _inverse(pairs: Sequence[tuple[Tensor, Tensor]], *, size: int) -> Tensor:
    order = pairs[0][0].new_empty(size)
    for rows, places in pairs:
        order[rows] = places
    return order
