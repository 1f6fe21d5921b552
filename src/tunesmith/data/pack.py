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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np

from tunesmith.data.chat import ChatFormat, Rendered
from tunesmith.data.config import Overlong
from tunesmith.data.ledger import HARD, Bookkeeper, Ledger, Tally
from tunesmith.data.overlong import fit, fit_text
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Record, TokenBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NO_TARGET", "Batches", "Encoded", "Sequence", "encode", "pack", "prefixed"]

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
    """The sequences of a split, end to end, and the account of every row."""

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.int64]
    """Sequence s covers `tokens[offsets[s]:offsets[s + 1]]`."""
    record_ids: tuple[str, ...]
    sources: tuple[str, ...] = ()
    """Of each sequence, as the recipe names it."""
    ledger: Ledger = field(default_factory=Ledger)
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
        self.sources: list[str] = []

    def add(self, tokens: tuple[int, ...], weights: tuple[float, ...], record_id: str, source: str) -> None:
        self.tokens.extend(tokens)
        self.weights.extend(weights)
        self.lengths.append(len(tokens))
        self.record_ids.append(record_id)
        self.sources.append(source)


def encode(
    records: Iterable[Record],
    *,
    chat: ChatFormat,
    max_length: int,
    learn: Literal["answers", "everything"] = "answers",
    overlong: Overlong = "right",
    sources: abc.Sequence[str] = (),
) -> Encoded:
    """Tokenise records for training.

    A conversation longer than `max_length` tokens is treated as `overlong` says; one in which nothing supervised is left is dropped.
    Plain text is never cut away: it becomes consecutive chunks, each starting with the last token of the one before, so that every
    token but the first is predicted exactly once. The ledger accounts for all of it, and its `faults` are for the caller to refuse.

    Args:
        records: read once.
        chat: tokenizer and template.
        max_length: tokens in a sequence at most, at least 2.
        learn: the answers of a conversation alone, or all of its tokens.
        overlong: see `DataConfig.overlong`; `error` cuts like `right`, and `ledger.refuse_losses` refuses.
        sources: names of the recipe's sources, by which the ledger is kept. Without them each file is its own.

    Raises:
        DataError: `max_length` is below 2, or the template's answers do not continue its prompts.
    """
    if max_length < 2:
        raise DataError(f"max_length is {max_length}; a sequence needs at least 2 tokens, one to read and one to predict")
    flat, books = _Flat(), Bookkeeper()
    dropped: list[Dropped] = []
    rows = list(records)
    for record, result in zip(rows, chat.render_many(rows), strict=True):
        source = sources[record.origin] if sources else record.source.path
        if isinstance(result, Dropped):
            books.drop(source, result, every=Tally(1), is_fault=result.reason in HARD)
            dropped.append(result)
            continue
        if record.tools and not chat.prints_tools(record):
            books.note_unseen_tools(source)
        rendered = result if learn == "answers" else [Rendered(tokens, (1.0,) * len(tokens)) for tokens, _ in result]
        if record.text is not None:
            fitted = [fit_text(one, max_length=max_length) for one in rendered]
        else:
            fitted = [fit(one, max_length=max_length, overlong=overlong, bos=chat.bos_token) for one in rendered]
            if (longest := max((len(one.tokens) for one in rendered), default=0)) > max_length:
                books.note_length(record.source, tokens=longest)
                fitted = [] if overlong == "drop" else fitted  # a row goes whole, even where a template makes several of it
        every, sequences = _tally(rendered), [one for each in fitted for one in each.sequences]
        if not sequences:
            left_out = _left_out(record, every=every, overlong=overlong, max_length=max_length)
            books.drop(source, left_out, every=every, is_fault=not every.supervised and record.text is None)
            dropped.append(left_out)
            continue
        for tokens, weights in sequences:
            flat.add(tokens, weights, record.id, source)
        read, num_repeated = _tally(sequences), sum(each.num_repeated for each in fitted)
        kept = Tally(1, read.tokens - num_repeated, read.supervised)
        books.keep(source, every=every, kept=kept, num_repeated=num_repeated, is_split=len(sequences) > len(rendered))
    return _finish(flat, dropped=dropped, ledger=books.close())


def prefixed(encoded: Encoded, *, prefix: abc.Sequence[int]) -> Encoded:
    """Put the same tokens in front of every sequence. None of them is learned, and the ledger stays that of the rows alone."""
    if not prefix:
        return encoded
    number, lengths = len(prefix), np.diff(encoded.offsets)
    offsets = encoded.offsets + number * np.arange(len(encoded) + 1)
    places = np.arange(encoded.num_tokens) + number * np.repeat(np.arange(1, len(encoded) + 1), lengths)
    tokens, targets = (np.full(int(offsets[-1]), NO_TARGET, dtype=np.int32) for _ in range(2))
    weights = np.zeros(tokens.shape, dtype=np.float32)
    tokens[(offsets[:-1, None] + np.arange(number)).ravel()] = np.tile(np.asarray(prefix, dtype=np.int32), len(encoded))
    tokens[places], targets[places], weights[places] = encoded.tokens, encoded.targets, encoded.weights
    return replace(encoded, tokens=tokens, targets=targets, weights=weights, offsets=offsets)


class Batches(abc.Sequence[TokenBatch]):
    """The batches of one epoch, in order; each is put together anew whenever it is asked for."""

    def __init__(self, encoded: Encoded, *, order: NDArray[np.int32], borders: NDArray[np.int64]) -> None:
        self._encoded = encoded
        self._order = order
        self._borders = borders
        """Batch b has the sequences `order[borders[b]:borders[b + 1]]`."""

    def __len__(self) -> int:
        return len(self._borders) - 1

    def members(self, num_batches: int) -> NDArray[np.int32]:
        """Numbers of the sequences that the first so many batches hold."""
        return self._order[: self._borders[min(num_batches, len(self))]]

    @property
    def num_tokens(self) -> int:
        return int(np.diff(self._encoded.offsets)[self._order].sum())

    @overload
    def __getitem__(self, index: int) -> TokenBatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenBatch]: ...
    def __getitem__(self, index: int | slice) -> TokenBatch | list[TokenBatch]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return _batch(self._encoded, self._order[self._borders[at] : self._borders[at + 1]].tolist())


def pack(encoded: Encoded, *, batch_tokens: int, seed: int, epoch: int, chosen: NDArray[np.int64] | None = None) -> Batches:
    """Lay the sequences of one epoch into batches, in an order drawn from `seed` and `epoch`.

    Best fit over a shuffled order: each sequence goes into the open batch in which it leaves the least room. Sequences are not
    sorted by length first, so a batch is still a sample of all of them, and the batches are shuffled once more, so that the early
    ones are no other than the late ones. O(n log n); a million sequences take about two seconds.

    Args:
        encoded: the sequences.
        batch_tokens: tokens in a batch at most.
        seed: of the order.
        epoch: counts from 0; each has its own order.
        chosen: numbers of the epoch's sequences, some perhaps more than once; None is every one once.

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
    order = random.permutation(len(encoded) if chosen is None else chosen).astype(np.int32)
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


def _tally(sequences: Iterable[Rendered]) -> Tally:
    """One row's tokens. The first of a sequence is never supervised: nothing stands before it to predict it from."""
    counts = [(len(tokens), len(weights) - weights.count(0.0) - (weights[0] > 0)) for tokens, weights in sequences]
    return Tally(1, sum(tokens for tokens, _ in counts), sum(supervised for _, supervised in counts))


def _left_out(record: Record, *, every: Tally, overlong: Overlong, max_length: int) -> Dropped:
    reason = "nothing_supervised"
    if record.text is not None:
        reason, detail = "single_token", "a text of one token predicts nothing"
    elif not every.supervised:
        detail = "nothing to learn: every assistant turn has weight 0. Take the row out, or give a turn a weight"
    elif overlong == "drop":
        reason, detail = "overlong", f"{every.tokens:,} tokens, more than max_length ({max_length:,})"
    else:
        detail = f"nothing is left to learn: all {every.supervised} tokens of its answers lie beyond max_length ({max_length})"
    text = record.text if record.text is not None else record.messages[-1].content if record.messages else ""
    return Dropped(source=record.source, reason=reason, detail=detail, raw=text[:200])


def _finish(flat: _Flat, *, dropped: list[Dropped], ledger: Ledger) -> Encoded:
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
        sources=tuple(flat.sources),
        ledger=ledger,
        dropped=tuple(dropped),
    )
