"""What a data set looks like, in figures: how much of what, how long, in which languages, how often the same. Draws nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tunesmith.data.frames import frames_of, opening
from tunesmith.records import Record, Role

__all__ = [
    "Bin",
    "Lengths",
    "Near",
    "Repeats",
    "answer_of",
    "characters_of",
    "count_languages",
    "count_leaks",
    "find_near",
    "find_repeats",
    "language_of",
    "measure_lengths",
    "question_of",
]

UNKNOWN = "unknown"
"""The language of a text too short to tell."""

_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_NUM_BINS = 24
_FEWEST_LETTERS = 20
"""On three words a language identifier guesses: py3langid named 3 of 7 such texts rightly, and 16 of 16 whole sentences."""
_LOOKED_AT = 1000
"""Characters of a text, for its language."""


class Bin(NamedTuple):
    """How many values lie from `low` to below `high`; the last bin of a long tail has no upper end."""

    low: int
    high: int | None
    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How values are spread."""

    num: int
    total: int
    mean: float
    smallest: int
    largest: int
    percentiles: Mapping[str, float]
    """`p50` is the length that half of the values do not exceed; between two values it is interpolated."""
    bins: tuple[Bin, ...]


class Repeats(NamedTuple):
    """Rows that say again what another says."""

    num_duplicates: int
    """Rows with the very content of an earlier one."""
    most_repeated: tuple[tuple[Record, int], ...]
    """Content that stands more than once, most frequent first."""
    conflicts: tuple[tuple[str, tuple[Record, ...]], ...]
    """Questions with different answers, and one row for each answer."""
    num_conflicts: int


class Near(NamedTuple):
    """Rows that say nearly what another says."""

    threshold: float
    clusters: tuple[tuple[Record, ...], ...]
    """Rows that belong together, of those with more than one."""
    leaks: Mapping[str, int]
    """Name of a held-out split -> its rows with a near-duplicate in the training rows."""


def measure_lengths(values: Iterable[int]) -> Lengths | None:
    """Percentiles and a histogram; None of nothing.

    The bins are equally wide up to the 99th percentile; what is longer shares one, or a single long row would press all others
    into the first bin.
    """
    lengths = np.fromiter(values, dtype=np.int64)
    if not len(lengths):
        return None
    marks = np.percentile(lengths, _PERCENTILES)
    return Lengths(
        num=len(lengths),
        total=int(lengths.sum()),
        mean=float(lengths.mean()),
        smallest=int(lengths.min()),
        largest=int(lengths.max()),
        percentiles={f"p{q}": float(mark) for q, mark in zip(_PERCENTILES, marks, strict=True)},
        bins=_bins(lengths, bulk=int(marks[-1])),
    )


def _bins(lengths: np.ndarray[Any, np.dtype[np.int64]], *, bulk: int) -> tuple[Bin, ...]:
    lowest, largest = int(lengths.min()), int(lengths.max())
    # Without a tail worth cutting off, the bins end with the longest row.
    end = largest if largest <= 2 * bulk - lowest else bulk
    width = max(-(-(end - lowest + 1) // _NUM_BINS), 1)
    edges = list(range(lowest, end + width + 1, width))
    if edges[-2] > end:
        edges.pop()
    counts, _ = np.histogram(lengths[lengths < edges[-1]], bins=edges)
    bins = [Bin(low, high, int(n)) for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    longer = int((lengths >= edges[-1]).sum())
    return (*bins, Bin(edges[-1], None, longer)) if longer else tuple(bins)


def characters_of(record: Record) -> int:
    """Characters of all that a row says."""
    return len(record.text) if record.text is not None else sum(len(message.content) for message in record.messages)


def question_of(record: Record) -> str:
    """What is asked first; of a plain text its beginning."""
    if record.text is not None:
        return record.text
    return next(
        (m.content for m in record.messages if m.role is Role.USER), record.messages[0].content if record.messages else ""
    )


def answer_of(record: Record) -> str:
    """What is answered last; empty for a plain text."""
    return next((m.content for m in reversed(record.messages) if m.role is Role.ASSISTANT), "")


def find_repeats(records: Sequence[Record], *, num_shown: int = 5) -> Repeats:
    """Exact duplicates, and equal questions (case and blanks aside) whose answers differ."""
    times = Counter(record.id for record in records)
    first: dict[str, Record] = {}
    answers: dict[str, dict[str, Record]] = {}
    frames = frames_of(records)
    for record in records:
        first.setdefault(record.id, record)
        # A later question depends on what was said before it, so only conversations of one question can contradict each other.
        if sum(message.role is Role.USER for message in record.messages) == 1:
            asked = _plain(opening(record, frames=frames) or "")
            answers.setdefault(asked, {}).setdefault(_plain(answer_of(record)), record)
    repeated = [(first[name], n) for name, n in times.most_common(num_shown) if n > 1]
    conflicts = [(question, tuple(given.values())) for question, given in answers.items() if len(given) > 1]
    conflicts.sort(key=lambda entry: -len(entry[1]))
    return Repeats(len(records) - len(times), tuple(repeated), tuple(conflicts[:num_shown]), len(conflicts))


def find_near(splits: Mapping[str, Sequence[Record]], *, threshold: float) -> Near:
    """Near-duplicates by true Jaccard similarity of character 5-grams, over all splits at once."""
    from tunesmith.data.leakage import comparable, said_in
    from tunesmith.data.near import cluster, copies, sketch

    records = [record for rows in splits.values() for record in rows]
    home = np.repeat(np.arange(len(splits)), [len(rows) for rows in splits.values()])
    sketched = sketch(comparable(said_in, records), threshold=threshold)
    members: dict[int, list[Record]] = {}
    for record, first in zip(records, cluster(sketched).first, strict=True):
        members.setdefault(int(first), []).append(record)
    leaks = {}
    if "train" in splits and len(splits) > 1:
        names = list(splits)
        is_held_out = home != names.index("train")
        found = copies(sketched, rows=is_held_out, among=~is_held_out) >= 0
        leaks = {name: int(found[home == i].sum()) for i, name in enumerate(names) if name != "train"}
    return Near(threshold, tuple(tuple(alike) for alike in members.values() if len(alike) > 1), leaks)


def count_leaks(train: Sequence[Record], held_out: Sequence[Record]) -> int:
    """Held-out rows whose content or opening (case and blanks aside) stands in the training rows."""
    frames = frames_of(train)

    def opens(record: Record) -> str:
        return _plain(opening(record, frames=frames) or question_of(record))

    known: set[str] = set()
    for record in train:
        known |= {record.id, opens(record)}
    return sum(record.id in known or opens(record) in known for record in held_out)


def count_languages(texts: Iterable[str]) -> Counter[str]:
    """How many texts are in which language (ISO 639-1, or `unknown`)."""
    return Counter(map(language_of, texts))


def language_of(text: str) -> str:
    """The language of a text, `unknown` below 20 letters."""
    start = text[:_LOOKED_AT]
    if sum(map(str.isalpha, start)) < _FEWEST_LETTERS:
        return UNKNOWN
    import py3langid  # its model takes a second to load

    name: str = py3langid.classify(start)[0]
    return name


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
