"""The few short rows on which proofs are tried: the version's own, or made up where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import NO_TARGET, encode
from tunesmith.records import Record, TokenBatch

__all__ = ["choose_rows", "join"]

_NUM_ROWS = 6
_NUM_READ = 64
"""Rows among which to choose."""
_SHORT = 96
_MADE_UP = (37, 5, 24, 90, 3, 61)
"""Lengths of made-up rows: some beyond the small sliding windows, some hardly there."""
_WEIGHTS = (0.5, 1.0, 2.0)


def choose_rows(records: Sequence[Record], *, chat: ChatFormat | None, vocabulary: int, max_length: int) -> TokenBatch:
    """Lay a few short rows end to end, unlike in how much of each is learned and how much it weighs.

    Were all alike, a mean of means would equal the mean. So half of the first row's targets are left out, and weights differ.
    """
    own = _own_rows(records, chat=chat, max_length=max_length) if chat is not None else []
    rows = own if len(own) > 1 else _made_up_rows(vocabulary, max_length=max_length)
    return join([_unlike(row, i) for i, row in enumerate(rows)])


def join(rows: Sequence[TokenBatch]) -> TokenBatch:
    """Batches end to end."""
    lengths = np.concatenate([np.diff(row.offsets) for row in rows])
    return TokenBatch(
        tokens=np.concatenate([row.tokens for row in rows]),
        targets=np.concatenate([row.targets for row in rows]),
        weights=np.concatenate([row.weights for row in rows]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        record_ids=tuple(record_id for row in rows for record_id in row.record_ids),
    )


def _own_rows(records: Sequence[Record], *, chat: ChatFormat, max_length: int) -> list[TokenBatch]:
    """Short rows of several lengths; the two shortest where all are long."""
    encoded = encode(islice(records, _NUM_READ), chat=chat, max_length=max_length)
    found = sorted(encoded.sequences, key=lambda sequence: len(sequence.tokens))
    num_short = max(sum(len(sequence.tokens) <= _SHORT for sequence in found), 2)
    if not found:
        return []
    chosen = np.unique(np.linspace(0, min(num_short, len(found)) - 1, _NUM_ROWS).astype(int)).tolist()
    return [_row(*found[i][:3], record_id=found[i].record_id) for i in chosen]


def _made_up_rows(vocabulary: int, *, max_length: int) -> list[TokenBatch]:
    draw = np.random.default_rng(0)
    rows = []
    for i, length in enumerate(min(length, max_length) for length in _MADE_UP):
        tokens = draw.integers(0, vocabulary, length).astype(np.int32)
        targets = np.append(np.where(draw.random(length - 1) < 0.6, tokens[1:], NO_TARGET), NO_TARGET)
        targets[0] = tokens[1]  # something is learned of every row
        rows.append(_row(tokens, targets, (targets >= 0) * 1.0, record_id=f"made up {i}"))
    return rows


def _row(tokens: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, record_id: str) -> TokenBatch:
    return TokenBatch(
        tokens=tokens,
        targets=targets.astype(np.int32),
        weights=weights.astype(np.float32),
        offsets=np.array([0, len(tokens)], np.int32),
        record_ids=(record_id,),
    )


def _unlike(row: TokenBatch, i: int) -> TokenBatch:
    targets, weights = row.targets.copy(), row.weights * np.float32(_WEIGHTS[i % len(_WEIGHTS)])
    if i == 0:
        learned = np.flatnonzero(targets >= 0)
        targets[learned[: len(learned) // 2]] = NO_TARGET
    weights[targets < 0] = 0.0
    return _row(row.tokens, targets, weights, record_id=row.record_ids[0])
