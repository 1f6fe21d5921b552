"""Records to training batches: tokenise once, then lay whole sequences end to end.

`encode` keeps the token sequences of a split in flat arrays (12 bytes a token); `pack` plans each epoch anew (4 bytes a sequence),
and a batch is put together when it is taken. A sequence is never split and attention never crosses from one into the next:
`TokenBatch.offsets` says where each begins.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np

from tunesmith.data.chat import ChatFormat, Rendered
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Record, TokenBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NO_TARGET", "Batches", "Encoded", "Sequence", "encode", "pack"]

NO_TARGET = -100
_NUM_OPEN = 128
"""Batches that wait for a sequence that fills their gap; measured: more of them gain nothing."""


class Sequence(NamedTuple):
    """One training sequence; each array has the same length. `targets[i]` is the token after `tokens[i]`, or -100."""

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    record_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The sequences of a split, end to end, and the account of what was cut away."""

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.int64]
    """Sequence s covers `tokens[offsets[s]:offsets[s + 1]]`."""
    record_ids: tuple[str, ...]
    num_truncated_rows: int
    """Conversations of which a part lay beyond `max_length`."""
    num_truncated_supervised: int
    """Tokens that would have been learned, had they not lain beyond `max_length`."""
    num_single_token: int
    """Sequences of one token, skipped because they predict nothing."""
    dropped: tuple[Dropped, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.record_ids)

    @property
    def num_tokens(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def num_supervised(self) -> int:
        return int((self.targets >= 0).sum())

    @property
    def sequences(self) -> Iterator[Sequence]:
        """Each sequence as views into the flat arrays, in the order of the records."""
        for s, record_id in enumerate(self.record_ids):
            at = slice(int(self.offsets[s]), int(self.offsets[s + 1]))
            yield Sequence(self.tokens[at], self.targets[at], self.weights[at], record_id)


class _Flat:
    """Grows the flat arrays of an `Encoded`."""

    def __init__(self) -> None:
        self.tokens = array("i")
        self.weights = array("f")
        self.lengths = array("q")
        self.record_ids: list[str] = []

    def add(self, tokens: tuple[int, ...], weights: tuple[float, ...], record_id: str) -> None:
        self.tokens.extend(tokens)
        self.weights.extend(weights)
        self.lengths.append(len(tokens))
        self.record_ids.append(record_id)


def encode(
    records: Iterable[Record], *, chat: ChatFormat, max_length: int, learn: Literal["answers", "everything"] = "answers"
) -> Encoded:
    """Tokenise records for training.

    A conversation longer than `max_length` tokens is cut on the right and counted; one in which nothing supervised is left is
    dropped. Plain text is never cut away: it becomes consecutive chunks, each starting with the last token of the one before, so
    that every token but the first is predicted exactly once.

    Args:
        records: read once.
        chat: tokenizer and template.
        max_length: tokens in a sequence at most, at least 2.
        learn: the answers of a conversation alone, or all of its tokens.

    Raises:
        DataError: `max_length` is below 2, or the template's answers do not continue its prompts.
    """
    if max_length < 2:
        raise DataError(f"max_length is {max_length}; a sequence needs at least 2 tokens, one to read and one to predict")
    flat = _Flat()
    dropped: list[Dropped] = []
    num_truncated_rows = num_truncated_supervised = num_single_token = 0
    rows = list(records)
    for record, result in zip(rows, chat.render_many(rows), strict=True):
        if isinstance(result, Dropped):
            dropped.append(result)
            continue
        if record.text is not None:
            num_single_token += _add_text(flat, result[0], record.id, max_length=max_length)
            continue
        learned = lost = 0
        for tokens, answer_weights in result:
            weights = answer_weights if learn == "answers" else (1.0,) * len(tokens)
            lost += sum(weight > 0 for weight in weights[max_length:])
            if any(weights[1:max_length]):
                flat.add(tokens[:max_length], weights[:max_length], record.id)
                learned += 1
        num_truncated_rows += any(len(rendered.tokens) > max_length for rendered in result)
        num_truncated_supervised += lost
        if not learned:
            dropped.append(_nothing_supervised(record, lost=lost, max_length=max_length))
    return _finish(
        flat,
        dropped=dropped,
        num_truncated_rows=num_truncated_rows,
        num_truncated_supervised=num_truncated_supervised,
        num_single_token=num_single_token,
    )


class Batches(abc.Sequence[TokenBatch]):
    """The batches of one epoch, in order; each is put together anew whenever it is asked for."""

    def __init__(self, encoded: Encoded, *, order: NDArray[np.int32], borders: NDArray[np.int64]) -> None:
        self._encoded = encoded
        self._order = order
        self._borders = borders
        """Batch b has the sequences `order[borders[b]:borders[b + 1]]`."""

    def __len__(self) -> int:
        return len(self._borders) - 1

    @overload
    def __getitem__(self, index: int) -> TokenBatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenBatch]: ...
    def __getitem__(self, index: int | slice) -> TokenBatch | list[TokenBatch]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return _batch(self._encoded, self._order[self._borders[at] : self._borders[at + 1]].tolist())


def pack(encoded: Encoded, *, batch_tokens: int, seed: int, epoch: int) -> Batches:
    """Lay the sequences of one epoch into batches, in an order drawn from `seed` and `epoch`.

    Best fit over a shuffled order: each sequence goes into the open batch in which it leaves the least room. Sequences are not
    sorted by length first, so a batch is still a sample of all of them, and the batches are shuffled once more, so that the early
    ones are no other than the late ones. O(n log n); a million sequences take about two seconds.

    Args:
        encoded: the sequences.
        batch_tokens: tokens in a batch at most.
        seed: of the order.
        epoch: counts from 0; each has its own order.

    Raises:
        DataError: a sequence is longer than `batch_tokens`.
    """
    lengths = np.diff(encoded.offsets)
    if len(encoded) and (longest := int(lengths.max())) > batch_tokens:
        raise DataError(
            f"batch_tokens is {batch_tokens}, but the longest sequence has {longest} tokens. "
            "Raise batch_tokens or lower max_length."
        )
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(encoded)).astype(np.int32)
    batch_of = _best_fit(lengths[order], room=batch_tokens)
    num_batches = int(batch_of.max(initial=-1)) + 1
    batch_of = random.permutation(num_batches).astype(np.int32)[batch_of]
    borders = np.concatenate([[0], np.cumsum(np.bincount(batch_of, minlength=num_batches))])
    return Batches(encoded, order=order[np.argsort(batch_of, kind="stable")], borders=borders)


def _best_fit(lengths: NDArray[np.int64], *, room: int) -> NDArray[np.int32]:
    """Number of the batch of each sequence: best fit with a bounded number of open batches (Csirik and Johnson 2001)."""
    shortest = int(lengths.min(initial=room))
    open_batches: list[tuple[int, int]] = []  # (room left, batch), the fullest first
    num_batches = 0
    placed = np.empty(len(lengths), dtype=np.int32)
    for place, length in enumerate(lengths.tolist()):
        at = bisect_left(open_batches, (length, 0))
        if at < len(open_batches):
            left, batch = open_batches.pop(at)
        else:
            left, batch = room, num_batches
            num_batches += 1
        placed[place] = batch
        if left - length >= shortest:
            insort(open_batches, (left - length, batch))
            if len(open_batches) > _NUM_OPEN:
                open_batches.pop(0)
    return placed


def _batch(encoded: Encoded, members: list[int]) -> TokenBatch:
    spans = [slice(int(encoded.offsets[s]), int(encoded.offsets[s + 1])) for s in members]
    return TokenBatch(
        tokens=np.concatenate([encoded.tokens[span] for span in spans]),
        targets=np.concatenate([encoded.targets[span] for span in spans]),
        weights=np.concatenate([encoded.weights[span] for span in spans]),
        offsets=np.cumsum([0, *(span.stop - span.start for span in spans)], dtype=np.int32),
        record_ids=tuple(encoded.record_ids[s] for s in members),
    )


def _add_text(flat: _Flat, rendered: Rendered, record_id: str, *, max_length: int) -> int:
    """Add a plain text in chunks; return how many were skipped for having one token."""
    tokens, weights = rendered
    if len(tokens) < 2:
        return 1
    for start in range(0, len(tokens) - 1, max_length - 1):
        flat.add(tokens[start : start + max_length], weights[start : start + max_length], record_id)
    return 0


def _nothing_supervised(record: Record, *, lost: int, max_length: int) -> Dropped:
    if lost:
        detail = f"nothing is left to learn: all {lost} tokens of its answers lie beyond max_length ({max_length})"
    else:
        detail = "nothing to learn: every assistant turn has weight 0"
    last = record.messages[-1].content if record.messages else ""
    return Dropped(source=record.source, reason="nothing_supervised", detail=detail, raw=last[:200])


def _finish(
    flat: _Flat, *, dropped: list[Dropped], num_truncated_rows: int, num_truncated_supervised: int, num_single_token: int
) -> Encoded:
    """Shift weights from tokens to the places that predict them, and name the targets."""
    tokens = np.array(flat.tokens, dtype=np.int32)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.array(flat.lengths, dtype=np.int64))])
    weights = np.zeros(tokens.shape, dtype=np.float32)
    targets = np.full(tokens.shape, NO_TARGET, dtype=np.int32)
    if tokens.size:
        weights[:-1] = np.array(flat.weights, dtype=np.float32)[1:]
        weights[offsets[1:] - 1] = 0.0  # the last token of a sequence predicts nothing
        targets[:-1] = tokens[1:]
        targets[weights == 0] = NO_TARGET
    return Encoded(
        tokens=tokens,
        targets=targets,
        weights=weights,
        offsets=offsets,
        record_ids=tuple(flat.record_ids),
        num_truncated_rows=num_truncated_rows,
        num_truncated_supervised=num_truncated_supervised,
        num_single_token=num_single_token,
        dropped=tuple(dropped),
    )
