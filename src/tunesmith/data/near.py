"""Near-duplicates: texts whose sets of character 5-grams are alike, in clusters, with the evidence.

MinHash signatures are cut into bands; texts that share a band are candidates; candidates whose signatures are too far apart are put
aside; a pair counts only when its true Jaccard similarity reaches the threshold; pairs that count are joined by union-find. Bands
are chosen so that a pair just at the threshold is missed with a chance of about 1 in 100,000. Every step is linear in the number
of texts: in a band that very many texts share, each is compared with the first and with its neighbours, and pairs already in one
cluster are never compared. A text takes about 0.3 kB here while it is looked at, and 5 bytes for each of its characters as long
as all texts together have no more than 40 million. The texts themselves are not held: they are asked for again when needed.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack
from scipy.sparse.csgraph import breadth_first_order, connected_components

from tunesmith.data.shingles import CHUNK_CHARACTERS, gram_sets, grams, jaccard, slices

__all__ = ["Clusters", "Sketch", "cluster", "copies", "sketch"]

_MISSED = 1e-5
_DEVIATIONS = 4.3
"""Standard deviations of which a normal variable falls short with a chance of 1 in 100,000."""
_MAX_HASHES = 192
_LOOKS = 64
"""Comparisons in one band, for each text on average, before the rest of a very common key is left to the other bands."""
_KEPT_CHARACTERS = 40_000_000
_CHUNK_CHARACTERS = 4_000_000
_KEYS_AT_ONCE = 1_000_000

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """Texts ready to be searched for near-duplicates."""

    threshold: float
    """Jaccard similarity, above 0 and up to 1, from which two texts are near-duplicates."""
    given: Sequence[str]
    """All texts."""
    first: Rows
    """Of the different texts, in the order in which they came, the first place of each in `given`."""
    at: Rows
    """For each text given, its number among the different ones."""
    lengths: NDArray[np.int64]
    """Characters of each different text."""
    signatures: NDArray[np.uint8]
    """Shape (len(first), bands, hashes): the low byte of each least hash (b-bit MinHash, Li and König 2010)."""
    sets: csr_array | None
    """Gram sets of the different texts; None where they would take too much memory and are made again when they are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """What belongs together. Arrays have one entry for each text given."""

    first: Rows
    """The first text of its cluster; itself, when it stands alone."""
    like: Rows
    """The text that ties it to its cluster; itself, for the first."""
    likeness: NDArray[np.float64]
    """Jaccard similarity with `like`."""
    is_exhaustive: bool
    """False: a band was shared by so many texts that not all pairs in it were compared."""


def sketch(texts: Sequence[str], *, threshold: float) -> Sketch:
    """Hash texts into signatures.

    Args:
        texts: in any order; equal ones cost nothing more. They are walked once here, and single ones are asked for later.
        threshold: Jaccard similarity, above 0 and up to 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold:g} is not above 0 and up to 1")
    num_bands, num_hashes = _bands_for(threshold)
    factors = np.random.default_rng(0).integers(0, 2**32, num_bands * num_hashes, np.uint32) | np.uint32(1)
    numbers: dict[bytes, int] = {}
    at, first, lengths = array("q"), array("q"), array("q")
    signatures, sets = np.empty((len(texts), num_bands, num_hashes), np.uint8), []
    num_done = num_characters = 0
    for part in _different_chunks(texts, numbers=numbers, at=at, first=first):
        cut = grams(part)
        done = num_done + len(part)
        signatures[num_done:done] = _least(cut.hashes, cut.starts[:-1], factors=factors).reshape(-1, num_bands, num_hashes)
        lengths.extend(map(len, part))
        num_done, num_characters = done, num_characters + sum(lengths[num_done:])
        if num_characters <= _KEPT_CHARACTERS:
            sets.append(gram_sets(cut))
        else:
            sets.clear()
    return Sketch(
        threshold=threshold,
        given=texts,
        first=np.array(first, np.intp),
        at=np.array(at, np.intp),
        lengths=np.array(lengths, np.int64),
        signatures=signatures[:num_done],
        sets=vstack(sets, format="csr") if sets else None,
    )


def _different_chunks(
    texts: Sequence[str], *, numbers: dict[bytes, int], at: array[int], first: array[int]
) -> Iterator[list[str]]:
    """The different texts in their order, some hundred thousand characters at once; fills in what number each text has."""
    waiting: list[str] = []
    num_characters = 0
    for i, text in enumerate(texts):
        # Of a million unequal texts two have equal hashes of 128 bits once in 10^26 times.
        at.append(numbers.setdefault(xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass")), len(numbers)))
        if len(first) == len(numbers):
            continue
        first.append(i)
        waiting.append(text)
        num_characters += len(text) + 1
        if num_characters >= CHUNK_CHARACTERS:
            yield waiting
            waiting, num_characters = [], 0
    if waiting:
        yield waiting


def cluster(sketch: Sketch) -> Clusters:
    """Join near-duplicates into clusters: connected components of the pairs that reach the threshold."""
    search = _Search(sketch)
    is_exhaustive = True
    for bands in _some_bands(sketch):
        is_exhaustive &= _search_bands(search, _band_keys(sketch, bands))
    like, likeness = _ties(len(sketch.first), search)
    # Texts given more than once hang on the first that is equal.
    firsts = sketch.first
    repeated = firsts[sketch.at] != np.arange(len(sketch.at))
    return Clusters(
        first=firsts[_smallest(search.labels)[sketch.at]],
        like=np.where(repeated, firsts[sketch.at], firsts[like[sketch.at]]),
        likeness=np.where(repeated, 1.0, likeness[sketch.at]),
        is_exhaustive=is_exhaustive,
    )


def copies(sketch: Sketch, *, rows: NDArray[np.bool_], among: NDArray[np.bool_]) -> Rows:
    """For each of some texts one near-duplicate of it among others.

    Args:
        sketch: of all texts given.
        rows: the texts asked about, one entry for each text given.
        among: the texts looked through.

    Returns:
        One entry for each text given: the first text equal to one such, or -1 where there is none or it is not asked about.
    """
    others = np.full(len(sketch.first), -1)
    givens = np.flatnonzero(among)[::-1]
    others[sketch.at[givens]] = givens
    asked = np.zeros(len(sketch.first), bool)
    asked[sketch.at[rows]] = True
    found = np.where(asked, others, -1)
    there = np.flatnonzero(others >= 0)
    for bands in _some_bands(sketch):
        keys = _band_keys(sketch, bands)
        held = keys[:, there].ravel()
        order = np.argsort(held, kind="stable")
        held, order = held[order], np.tile(there, len(keys))[order]
        sought = np.flatnonzero(asked & (found < 0))
        wanted, sought = keys[:, sought].ravel(), np.tile(sought, len(keys))
        run = wanted >> np.uint64(32) << np.uint64(32)
        low = np.searchsorted(held, run)
        size = np.searchsorted(held, run | np.uint64(0xFFFFFFFF), side="right") - low
        begin = np.searchsorted(held, wanted) - low
        for k in range(_LOOKS):
            still = (size > k) & (found[sought] < 0)
            if not still.any():
                break
            sought, low, size, begin = sought[still], low[still], size[still], begin[still]
            other = order[low + (begin + k) % size]
            alike = likeness(sketch, sought, other) >= sketch.threshold
            found[sought[alike]] = others[other[alike]]
    return np.where(rows, found[sketch.at], -1)


def likeness(sketch: Sketch, left: Rows, right: Rows) -> NDArray[np.float64]:
    """Jaccard similarity of different texts `left[i]` and `right[i]`; 0 where the signatures are too far apart for the threshold."""
    num_hashes = math.prod(sketch.signatures.shape[1:])
    signatures = sketch.signatures.reshape(-1, num_hashes)
    # Unequal least hashes have an equal byte once in 256 times.
    least = sketch.threshold - _DEVIATIONS * math.sqrt(sketch.threshold * (1 - sketch.threshold) / num_hashes)
    agree = np.empty(len(left), np.uint16)
    for start in range(0, len(left), 4096):
        part = slice(start, start + 4096)
        agree[part] = (signatures[left[part]] == signatures[right[part]]).sum(1, dtype=np.uint16)
    near = np.flatnonzero(agree >= num_hashes * (least + (1 - least) / 256))
    found = np.zeros(len(left))
    left, right = left[near], right[near]
    if sketch.sets is not None:
        found[near] = jaccard(sketch.sets, left, right)
        return found
    for part in slices(sketch.lengths[left] + sketch.lengths[right], limit=_CHUNK_CHARACTERS):
        used, at = np.unique(np.concatenate([left[part], right[part]]), return_inverse=True)
        sets = gram_sets(grams([sketch.given[i] for i in sketch.first[used].tolist()]))
        found[near[part]] = jaccard(sets, at[: len(at) // 2], at[len(at) // 2 :])
    return found


def _bands_for(threshold: float) -> tuple[int, int]:
    """How many bands of how many hashes: the longest bands that miss no more than allowed within the hashes we pay for."""
    best = (0, 0)
    for num_hashes in range(1, 9):
        chance = min(threshold**num_hashes, 1 - 1e-12)
        num_bands = max(1, math.ceil(math.log(_MISSED) / math.log1p(-chance)))
        if num_bands * num_hashes <= _MAX_HASHES or num_hashes == 1:
            best = (num_bands, num_hashes)
    return best


def _least(hashes: NDArray[np.uint32], starts: Rows, *, factors: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """MinHash of each text: for every factor the least of its hashes times it, of which the low byte after mixing is kept."""
    scratch = np.empty_like(hashes)
    found = np.empty((len(starts), len(factors)), np.uint8)
    for i, factor in enumerate(factors):
        np.multiply(hashes, factor, out=scratch)
        least = np.minimum.reduceat(scratch, starts)
        # The high bits of a least value are nearly always 0, and the low ones of a product hang on few bits.
        found[:, i] = (least * np.uint32(0x9E3779B1)) >> np.uint32(24)
    return found


def _some_bands(sketch: Sketch) -> Iterator[range]:
    """All bands, as many at once as have a million keys: few texts are then done in few steps, and many in little memory."""
    num_bands = sketch.signatures.shape[1]
    at_once = max(1, _KEYS_AT_ONCE // max(len(sketch.first), 1))
    for start in range(0, num_bands, at_once):
        yield range(start, min(start + at_once, num_bands))


def _band_keys(sketch: Sketch, bands: range) -> NDArray[np.uint64]:
    """Keys that sort by one band (the high half), and within it by another: texts alike in both stand next to each other.

    Returns:
        Shape (len(bands), number of different texts). Keys of different bands differ.
    """
    keys = np.empty((len(bands), len(sketch.first)), np.uint64)
    for row, band in zip(keys, bands, strict=True):
        halves = []
        for of_band in (sketch.signatures[:, band], sketch.signatures[:, band - 1]):
            key = np.zeros(len(of_band), np.uint64)
            for i in range(of_band.shape[1]):
                key = (key << np.uint64(8)) | of_band[:, i]
            # The band's number stands where only eight hashes reach.
            key ^= np.uint64(band) << np.uint64(56)
            key ^= key >> np.uint64(32)
            halves.append((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32))
        row[:] = (halves[0] << np.uint64(32)) | halves[1]
    return keys


class _Search:
    """Clusters as they grow, and the pairs that were compared."""

    def __init__(self, sketch: Sketch) -> None:
        self.sketch = sketch
        self.labels: Rows = np.arange(len(sketch.first))
        self._moved: Rows = np.arange(len(sketch.first))
        self.left: list[Rows] = []
        self.right: list[Rows] = []
        self.likeness: list[NDArray[np.float64]] = []

    def compare(self, left: Rows, right: Rows) -> None:
        """Compare pairs that are not yet in one cluster, and join those that are alike."""
        apart = self.labels[left] != self.labels[right]
        left, right = left[apart], right[apart]
        found = likeness(self.sketch, left, right)
        alike = found >= self.sketch.threshold
        if alike.any():
            # Pairs that several bands offer are few, and cheaper compared twice than sorted out beforehand.
            pairs, once = np.unique(
                np.minimum(left, right)[alike] * len(self.labels) + np.maximum(left, right)[alike], return_index=True
            )
            left, right = np.divmod(pairs, len(self.labels))
            self.left.append(left)
            self.right.append(right)
            self.likeness.append(found[alike][once])
            # Only clusters that are touched are joined: a graph of all texts at every step would take most of the time.
            touched, at = np.unique(self.labels[np.concatenate([left, right])], return_inverse=True)
            size, half = len(touched), len(left)
            joined = coo_array((np.ones(half, np.int8), (at[:half], at[half:])), (size, size))
            parts = connected_components(joined, directed=False)[1]
            first = np.full(size, size, np.intp)
            np.minimum.at(first, parts, np.arange(size))
            self._moved[touched] = touched[first[parts]]
            self.labels = self._moved[self.labels]


def _search_bands(search: _Search, keys: NDArray[np.uint64]) -> bool:
    """Compare texts that share a key: each with the first, then with its neighbours, near ones first.

    Returns:
        Whether every pair that shares a key was compared, or is in one cluster.
    """
    num_texts = keys.shape[1]
    keys = keys.ravel()
    order = np.argsort(keys, kind="stable")
    runs = keys[order] >> np.uint64(32)
    order %= num_texts
    starts = np.flatnonzero(np.concatenate([[True], runs[1:] != runs[:-1]])[: len(runs)])
    sizes = np.diff(np.append(starts, len(runs)))
    order, starts, sizes = _chosen(order, sizes, sizes > 1)
    search.compare(np.repeat(order[starts], sizes), order)
    looks, step = _LOOKS * len(keys), 0
    while len(order):
        step += 1
        labels = search.labels[order]
        is_mixed = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
        order, starts, sizes = _chosen(order, sizes, is_mixed & (sizes > step))
        if len(order) and looks < 0:
            return False
        here = np.flatnonzero(np.arange(len(order)) - np.repeat(starts, sizes) + step < np.repeat(sizes, sizes))
        looks -= len(here)
        search.compare(order[here], order[here + step])
    return True


def _chosen(order: Rows, sizes: Rows, wanted: NDArray[np.bool_]) -> tuple[Rows, Rows, Rows]:
    """The runs that are wanted, closed up: their texts, starts and sizes."""
    order, sizes = order[np.repeat(wanted, sizes)], sizes[wanted]
    return order, np.cumsum(sizes) - sizes, sizes


def _smallest(labels: Rows) -> Rows:
    """For each text the first of its cluster."""
    first = np.full(int(labels.max(initial=-1)) + 1, len(labels), np.intp)
    np.minimum.at(first, labels, np.arange(len(labels)))
    return first[labels]


def _ties(num: int, search: _Search) -> tuple[Rows, NDArray[np.float64]]:
    """For each text the one through which it is tied to the first of its cluster, by the fewest steps, and how alike the two are."""
    like, likeness = np.arange(num), np.ones(num)
    if not search.left:
        return like, likeness
    left, right, values = (np.concatenate(part) for part in (search.left, search.right, search.likeness))
    firsts = np.unique(_smallest(search.labels))
    # One more node, tied to the first text of every cluster, turns all clusters into one walk.
    tied = np.concatenate([left, np.full(len(firsts), num)]), np.concatenate([right, firsts])
    graph = coo_array((np.ones(len(tied[0]), np.int8), tied), (num + 1, num + 1)).tocsr()
    before = breadth_first_order(graph, num, directed=False)[1][:num].astype(np.intp)
    like = np.where(before == num, like, before)
    keys = np.minimum(left, right) * num + np.maximum(left, right)
    order = np.argsort(keys)
    wanted = np.minimum(like, np.arange(num)) * num + np.maximum(like, np.arange(num))
    tied_rows = np.flatnonzero(like != np.arange(num))
    likeness[tied_rows] = values[order][np.searchsorted(keys[order], wanted[tied_rows])]
    return like, likeness
