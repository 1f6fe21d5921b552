"""Contamination: training rows that hold what a test asks.

A test row's question (a text as a whole) is looked for in everything that a training row says. Only letters, digits and marks count,
in runs of 32 (of 16 for questions shorter than that), so text that was wrapped, hyphenated, quoted or set otherwise is still found,
in any script. The share is taken on the test's side: a copy inside a long document weighs as much as one by itself. A near-duplicate
question is found by its Jaccard similarity too, which survives small edits of short questions.
Answers are not looked for, because one answer may serve many questions. Questions of fewer than 16 characters are found only as
near-duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.frames import frames_of
from tunesmith.data.leakage import asked_of, said_in
from tunesmith.data.near import copies, sketch
from tunesmith.data.shelf import Joined, Mapped
from tunesmith.data.shingles import in_chunks, windows
from tunesmith.records import Record

__all__ = ["Contamination", "contaminations"]

_LONG, _SHORT = 32, 16
_TESTS_A_WINDOW = 50
"""Tests that are counted for one window at most. Of a template that more tests share, the first ones still show it."""


class Contamination(NamedTuple):
    """What a training row holds."""

    test: int
    """The test row's place."""
    share: float | None
    """Of the test's windows, those found in the training row; None: the questions are near-duplicates."""


class _Index(NamedTuple):
    """Windows of test questions."""

    length: int
    hashes: NDArray[np.uint64]
    """Sorted, each once."""
    starts: NDArray[np.intp]
    tests: NDArray[np.intp]
    """Window i stands in tests `tests[starts[i]:starts[i + 1]]`."""
    sizes: NDArray[np.intp]
    """For each test how many different windows it has."""


def contaminations(
    rows: Sequence[Record], tests: Sequence[Record], *, share: float, likeness: float
) -> list[Contamination | None]:
    """For each training row the test row that it holds most of, or None.

    Args:
        rows: training rows.
        tests: test rows.
        share: of a test's windows, above 0 and up to 1, from which it counts as held.
        likeness: Jaccard similarity of the questions from which it counts.
    """
    frames = frames_of(rows) | frames_of(tests)
    asked = Mapped(partial(asked_of, frames=frames), tests)
    found: list[Contamination | None] = [None] * len(rows)
    texts = Mapped(partial(said_in, frames=frames), rows)
    for length in (_LONG, _SHORT):
        index = _index(asked, length=length)
        for row, test, value in _held(texts, index, share=share):
            best = found[row]
            if best is None or best.share is None or value > best.share:
                found[row] = Contamination(test, value)
    compared = sketch(Joined(Mapped(partial(asked_of, frames=frames), rows), asked), threshold=likeness)
    is_row = np.arange(len(rows) + len(tests)) < len(rows)
    for row, other in enumerate(copies(compared, rows=is_row, among=~is_row)[: len(rows)].tolist()):
        if other >= 0 and found[row] is None:
            found[row] = Contamination(other - len(rows), None)
    return found


def _index(asked: Sequence[str], *, length: int) -> _Index:
    cut = windows(asked, length=length)
    owners = np.repeat(np.arange(len(asked)), np.diff(cut.starts))
    hashes = cut.hashes.astype(np.uint64)
    if length < _LONG:
        # Long questions are asked for by their long windows alone.
        is_short = np.diff(windows(asked, length=_LONG).starts) == 0
        hashes, owners = hashes[is_short[owners]], owners[is_short[owners]]
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    is_new = np.concatenate([[True], (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])])[: len(hashes)]
    hashes, owners = hashes[is_new], owners[is_new]
    different, starts = np.unique(hashes, return_index=True)
    return _Index(length, different, np.append(starts, len(hashes)), owners, np.bincount(owners, minlength=len(asked)))


def _held(texts: Sequence[str], index: _Index, *, share: float) -> Iterator[tuple[int, int, float]]:
    """Rows that hold at least this share of a test's windows: row, the test of which it holds most, the share."""
    if not len(index.hashes):
        return
    for part in in_chunks(texts):
        cut = windows(texts[part], length=index.length)
        hashes = cut.hashes.astype(np.uint64)
        places = np.minimum(np.searchsorted(index.hashes, hashes), len(index.hashes) - 1)
        hit = np.flatnonzero(index.hashes[places] == hashes)
        rows = np.repeat(np.arange(len(cut.starts) - 1), np.diff(cut.starts))[hit]
        pairs = np.unique(np.stack([rows, places[hit]]), axis=1)
        sizes = np.minimum(np.diff(index.starts)[pairs[1]], _TESTS_A_WINDOW)
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        tests = index.tests[np.repeat(index.starts[pairs[1]], sizes) + within]
        (rows, tests), counts = np.unique(np.stack([np.repeat(pairs[0], sizes), tests]), axis=1, return_counts=True)
        values = counts / index.sizes[tests]
        for at in np.lexsort((tests, -values, rows)):
            if values[at] >= share:
                yield part.start + int(rows[at]), int(tests[at]), float(values[at])
