"""Is there enough data of the target's kind? Rows against 10 to 50 target examples, or a test set, by words alone.

Nearness is the cosine of TF-IDF vectors of hashed words, word pairs and four-letter pieces of words, so it needs no model and no
language. Two texts that say the same in other words are not near: that is the measure's limit, and why the advice names examples.
The effective number of target-like rows follows DSIR (Xie et al. 2023, arXiv 2302.03169): importance weights from hashed 1- and
2-grams, and (sum w)^2 / sum w^2. Three departures: a log weight is divided by the root of the row's length, or long rows would decide
alone; no weight is above 1, or a few rows would; and a row that is near no target counts 0, or a set without a single fitting row would
have many that fit alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from xxhash import xxh32_intdigest

from tunesmith.errors import DataError
from tunesmith.records import Record, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

__all__ = ["WELL", "Coverage", "Gap", "Target", "measure_coverage", "nearness"]

WELL, THIN = 0.45, 0.30
"""A target whose nearest row is at least so near is covered well, or thinly. Boutique questions in other wordings stand at 0.53 and above,
questions about a missing topic mostly below 0.25, general chat at 0.05 to 0.2."""
ENOUGH_ROWS, FEW_ROWS = 50, 20
_NUM_FEATURES = 1 << 18
_NUM_BUCKETS = 10_000  # as in DSIR
_BLOCK = 4096
_CELLS = 1 << 23  # numbers of one comparison of rows with targets: 64 MB
_SAMPLE = 20_000  # rows from which word frequencies are taken
_BINS = 10
_JOINED = 0.15
"""Mean nearness at which uncovered targets without a domain make one cluster."""
_NUM_EXAMPLES = 3
_ALONE = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
"""A word, or one letter of a script that puts no blanks between words."""

Verdict = Literal["enough", "thin", "not enough"]


class Target(NamedTuple):
    """One target, and the row nearest to it."""

    source: str
    text: str
    nearness: float
    nearest: str
    """file:line of the nearest row."""


class Gap(NamedTuple):
    """Targets of one kind that no row is near to."""

    topic: str
    """Their domain, or the words that set them apart."""
    num_targets: int
    examples: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How well rows cover the targets."""

    verdict: Verdict
    num_rows: int
    num_targets: int
    num_well: int
    num_thin: int
    num_near_rows: int
    """Rows that are near a target."""
    effective_rows: float
    """What these are worth, as many that all fit alike."""
    histogram: tuple[int, ...]
    """Targets by the nearness of their nearest row: 0 to 0.1, 0.1 to 0.2, and so on."""
    gaps: tuple[Gap, ...]
    advice: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        gaps = [gap._asdict() | {"examples": [target._asdict() for target in gap.examples]} for gap in self.gaps]
        return asdict(self) | {"num_uncovered": self.num_targets - self.num_well - self.num_thin, "gaps": gaps}


def measure_coverage(rows: Sequence[Record], *, targets: Sequence[Record]) -> Coverage:
    """Measure how well rows cover targets. Time grows with the rows' words.

    Args:
        rows: the training rows.
        targets: examples of what the model will be asked; one without an answer is compared with the rows' questions too.

    Raises:
        DataError: there are no rows, or no targets.
    """
    if not rows or not targets:
        raise DataError(f"coverage needs rows and targets; there are {len(rows):,} rows and {len(targets):,} targets")
    space = _Space(rows, targets)
    vectors = space.vectors(map(_whole, targets))
    asks_only = np.array([not _has_answer(target) for target in targets])
    nearness, nearest = np.zeros(len(targets)), np.zeros(len(targets), dtype=np.int64)
    row_nearness, log_weights = np.zeros(len(rows)), np.zeros(len(rows))
    length = max(min(_BLOCK, _CELLS // len(targets)), 1)
    for start in range(0, len(rows), length):
        block = rows[start : start + length]
        counts = _count(map(_whole, block))
        near = (vectors @ space.weighted(counts.pieces).T).toarray()
        if asks_only.any():
            asked = (vectors[asks_only] @ space.vectors(map(_question, block)).T).toarray()
            near[asks_only] = np.maximum(near[asks_only], asked)
        better = near.max(axis=1) > nearness
        nearest = np.where(better, start + near.argmax(axis=1), nearest)
        nearness = np.maximum(nearness, near.max(axis=1))
        row_nearness[start : start + len(block)] = near.max(axis=0)
        log_weights[start : start + len(block)] = space.log_weights(counts.grams)
    found = [
        Target(str(target.source), _question(target) or _whole(target), round(float(near), 4), str(rows[at].source))
        for target, near, at in zip(targets, nearness, nearest.tolist(), strict=True)
    ]
    is_near = row_nearness >= THIN
    return _judge(
        found,
        targets=targets,
        vectors=vectors,
        rarity=space.rarity,
        num_rows=len(rows),
        num_near_rows=int(is_near.sum()),
        effective_rows=_effective(log_weights[is_near]),
    )


def nearness(rows: Sequence[Record], *, targets: Sequence[Record]) -> list[float]:
    """How near the nearest row is to each target: cosine of their TF-IDF vectors, 0 to 1; 0 where there are no rows."""
    if not rows or not targets:
        return [0.0] * len(targets)
    space = _Space(rows, targets)
    vectors = space.vectors(map(_whole, targets))
    found = np.zeros(len(targets))
    length = max(min(_BLOCK, _CELLS // len(targets)), 1)
    for start in range(0, len(rows), length):
        near = vectors @ space.vectors(map(_whole, rows[start : start + length])).T
        found = np.maximum(found, near.toarray().max(axis=1))
    return [float(near) for near in found]


class _Counts(NamedTuple):
    """Of texts, one a row: how often each hashed piece comes, and each hashed word or pair of words."""

    pieces: csr_matrix
    grams: csr_matrix


class _Space:
    """What words are worth, from the frequencies of the rows and targets at hand."""

    def __init__(self, rows: Sequence[Record], targets: Sequence[Record]) -> None:
        there = _count(map(_whole, rows[:: max(len(rows) // _SAMPLE, 1)]))
        wanted = _count(map(_whole, targets))
        frequency = sum(np.bincount(found.pieces.indices, minlength=_NUM_FEATURES) for found in (there, wanted))
        self._rarity = np.log((1 + there.pieces.shape[0] + wanted.pieces.shape[0]) / (1 + frequency))
        has, wants = _share(there.grams), _share(wanted.grams)
        # Half of each, so that a word which no target has counts against a row but does not rule it out.
        self._log_ratio = np.log((wants + has) / 2) - np.log(has)

    def rarity(self, word: str) -> float:
        """How seldom a word is: log of all texts over those that have it."""
        return float(self._rarity[xxh32_intdigest(word.encode()) % _NUM_FEATURES])

    def vectors(self, texts: Iterable[str]) -> csr_matrix:
        return self.weighted(_count(texts).pieces)

    def weighted(self, pieces: csr_matrix) -> csr_matrix:
        """TF-IDF vectors of length 1."""
        weighted = pieces.copy()
        weighted.data = (1 + np.log(pieces.data)) * self._rarity[pieces.indices]
        of_row = np.repeat(np.arange(pieces.shape[0]), np.diff(pieces.indptr))
        lengths = np.sqrt(np.bincount(of_row, weights=weighted.data**2, minlength=pieces.shape[0]))
        weighted.data /= np.maximum(lengths, 1e-12)[of_row]
        return weighted

    def log_weights(self, grams: csr_matrix) -> NDArray[np.float64]:
        """Log importance weight of each row, over the root of its length."""
        lengths = np.maximum(np.asarray(grams.sum(axis=1)).ravel(), 1)
        weights: NDArray[np.float64] = np.asarray(grams @ self._log_ratio).ravel() / np.sqrt(lengths)
        return weights


def _count(texts: Iterable[str]) -> _Counts:
    from scipy.sparse import csr_matrix

    found: tuple[list[int], list[int]] = ([], [])
    ends: tuple[list[int], list[int]] = ([0], [0])
    for text in texts:
        words = _WORD.findall(text.casefold())
        grams = [xxh32_intdigest(gram.encode()) for gram in [*words, *map(" ".join, pairwise(words))]]
        pieces = [piece % _NUM_FEATURES for piece in grams]
        for word in words:
            pieces += _letters(word)
        for kept, end, more in zip(found, ends, (pieces, [gram % _NUM_BUCKETS for gram in grams]), strict=True):
            kept.extend(more)
            end.append(len(kept))
    matrices = [
        csr_matrix((np.ones(len(kept)), kept, end), shape=(len(end) - 1, width))
        for kept, end, width in zip(found, ends, (_NUM_FEATURES, _NUM_BUCKETS), strict=True)
    ]
    for matrix in matrices:
        matrix.sum_duplicates()
    return _Counts(*matrices)


@lru_cache(maxsize=1 << 16)
def _letters(word: str) -> list[int]:
    """Hashed four-letter pieces of a word, its ends marked: what keeps `shoe` near `shoes`."""
    marked = f"_{word}_"
    return [xxh32_intdigest(f"#{marked[at : at + 4]}".encode()) % _NUM_FEATURES for at in range(max(len(marked) - 3, 1))]


def _share(grams: csr_matrix) -> NDArray[np.float64]:
    """Share of each bucket among all; none is nothing."""
    counts: NDArray[np.float64] = np.asarray(grams.sum(axis=0)).ravel() + 1e-3
    counts /= counts.sum()
    return counts


def _effective(log_weights: NDArray[np.float64]) -> float:
    if not len(log_weights):
        return 0.0
    weights = np.exp(np.minimum(log_weights, 0.0))
    return float(weights.sum() ** 2 / (weights**2).sum())


def _judge(
    found: Sequence[Target],
    *,
    targets: Sequence[Record],
    vectors: csr_matrix,
    rarity: Callable[[str], float],
    num_rows: int,
    num_near_rows: int,
    effective_rows: float,
) -> Coverage:
    nearness = np.array([target.nearness for target in found])
    num_well, num_thin = int((nearness >= WELL).sum()), int(((nearness >= THIN) & (nearness < WELL)).sum())
    gaps = _gaps(found, targets=targets, vectors=vectors, rarity=rarity, open_at=np.flatnonzero(nearness < THIN))
    verdict: Verdict = "thin"
    if (
        num_well >= 0.8 * len(found)
        and nearness.size - num_well - num_thin <= 0.05 * len(found)
        and effective_rows >= ENOUGH_ROWS
    ):
        verdict = "enough"
    elif num_well < 0.5 * len(found) or effective_rows < FEW_ROWS:
        verdict = "not enough"
    return Coverage(
        verdict=verdict,
        num_rows=num_rows,
        num_targets=len(found),
        num_well=num_well,
        num_thin=num_thin,
        num_near_rows=num_near_rows,
        effective_rows=round(effective_rows, 1),
        histogram=tuple(np.histogram(nearness, bins=_BINS, range=(0, 1))[0].tolist()),
        gaps=gaps,
        advice=tuple(_advise(verdict, gaps=gaps, num_targets=len(found), num_thin=num_thin, effective_rows=effective_rows)),
    )


def _gaps(
    found: Sequence[Target],
    *,
    targets: Sequence[Record],
    vectors: csr_matrix,
    rarity: Callable[[str], float],
    open_at: NDArray[np.int64],
) -> tuple[Gap, ...]:
    """Uncovered targets by kind: their domain, or where they name none, who is near whom. The largest first."""
    kinds: dict[str, list[int]] = {}
    nameless = [at for at in open_at.tolist() if not targets[at].domain]
    for at in open_at.tolist():
        if targets[at].domain:
            kinds.setdefault(targets[at].domain, []).append(at)
    for members in _clusters(vectors, nameless):
        words = Counter(word for at in members for word in set(_WORD.findall(found[at].text.casefold())))
        telling = sorted(
            words, key=lambda word: (-words[word] * rarity(word), word)
        )  # said by most of these, and seldom elsewhere
        kinds.setdefault(" ".join(telling[:3]) or "(no words)", []).extend(members)
    gaps = [
        Gap(topic, len(members), tuple(sorted((found[at] for at in members), key=lambda one: one.nearness)[:_NUM_EXAMPLES]))
        for topic, members in kinds.items()
    ]
    return tuple(sorted(gaps, key=lambda gap: (-gap.num_targets, gap.topic)))


def _clusters(vectors: csr_matrix, members: Sequence[int]) -> Iterator[list[int]]:
    """Average linkage of the targets' own nearness."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(members) < 2:
        yield from ([at] for at in members)
        return
    mine = vectors[list(members)]
    distance = np.clip(1 - (mine @ mine.T).toarray(), 0, None)
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - _JOINED, "distance")
    for label in np.unique(labels):
        yield [members[i] for i in np.flatnonzero(labels == label).tolist()]


def _advise(verdict: Verdict, *, gaps: Sequence[Gap], num_targets: int, num_thin: int, effective_rows: float) -> Iterator[str]:
    """What to collect, in plain words."""
    for gap in gaps:
        example = gap.examples[0]
        yield (
            f"collect rows about {gap.topic!r}: nothing is near {gap.num_targets} of the {num_targets} targets, such as "
            f"{_shortened(example.text)!r} ({example.source})"
        )
    if num_thin:
        yield f"{num_thin} of the {num_targets} targets are covered thinly: add rows that ask the same in other words"
    if effective_rows < ENOUGH_ROWS:
        yield (
            f"the rows that are near the targets are worth {effective_rows:.0f} that fit alike; {ENOUGH_ROWS} is little. "
            "Add rows of the targets' kind"
        )
    if verdict == "enough":
        yield "whether more of the same would help further, a learning curve says: tunesmith check RECIPE --learning-curve"


def _whole(record: Record) -> str:
    if record.text is not None:
        return record.text
    return "\n".join(message.content for message in record.messages if message.role is not Role.SYSTEM)


def _question(record: Record) -> str:
    return "\n".join(message.content for message in record.messages if message.role is Role.USER)


def _has_answer(record: Record) -> bool:
    return any(message.role is Role.ASSISTANT for message in record.messages)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"
