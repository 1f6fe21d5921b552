"""Texts as sets of hashed character 5-grams, on which likeness is measured.

The rule, in this order: Unicode NFKC; case folded; punctuation, blanks and control characters are one blank between words
(letters, digits, marks and symbols stay); every 5 neighbouring characters are a gram. A text of fewer than 5 characters is one
gram; one of punctuation alone is compared as it is written. A gram is a 32-bit hash. Whole chunks of texts are worked on at
once in numpy: about 25 ns a character.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["CHUNK_CHARACTERS", "GRAM", "Grams", "gram_sets", "grams", "in_chunks", "jaccard", "slices", "windows"]

GRAM = 5
_BLANK, _ROW_END = 32, 0x1E
_UNKNOWN, _WORD, _SYMBOL, _GAP, _END = range(5)
CHUNK_CHARACTERS = 400_000
"""Of texts that are worked on at once, so that arrays stay in the processor's caches."""
_PAIR_CHUNK_GRAMS = 8_000_000
_kinds = np.zeros(0x110000, np.uint8)


class Grams(NamedTuple):
    """Hashed grams of several texts, end to end and with repeats: those of text i are `hashes[starts[i]:starts[i + 1]]`."""

    hashes: NDArray[np.unsignedinteger[Any]]
    starts: NDArray[np.intp]


def grams(texts: Sequence[str]) -> Grams:
    """Normalise texts and cut them into hashed grams, at least one each."""
    codes, starts = _normalised(texts)
    lengths = np.diff(starts)
    num_grams = np.maximum(lengths - GRAM + 1, 1)
    gram_starts = np.concatenate([[0], np.cumsum(num_grams)]).astype(np.intp)
    # A gram stands at every place that has 4 more characters of its text after it.
    places = np.arange(gram_starts[-1]) + np.repeat(starts[:-1] - gram_starts[:-1], num_grams)
    padded = np.concatenate([codes, np.zeros(GRAM, np.uint32)])
    rolling = padded[: len(codes) + 1].copy()
    for i in range(1, GRAM):
        rolling *= np.uint32(0x9E3779B1)
        rolling += padded[i : len(codes) + 1 + i]
    hashes = _mixed(rolling[places])
    for i in np.flatnonzero(lengths < GRAM).tolist():
        short = codes[starts[i] : starts[i + 1]].tobytes() or texts[i].strip().encode("utf-8", "surrogatepass")
        hashes[gram_starts[i]] = xxhash.xxh32_intdigest(short)
    return Grams(hashes, gram_starts)


def gram_sets(grams: Grams) -> csr_array:
    """Each text's set of grams as a row of a matrix of ones; hashes lose a bit, because column numbers are int32."""
    from scipy.sparse import csr_array

    hashes, starts = grams
    num = len(starts) - 1
    owners = np.repeat(np.arange(num, dtype=np.uint64), np.diff(starts))
    keys = np.sort((owners << np.uint64(32)) | (hashes >> np.uint32(1)))
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]]
    ends = np.searchsorted(keys, np.arange(num + 1, dtype=np.uint64) << np.uint64(32))
    columns = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
    return csr_array((np.ones(len(columns), np.int8), columns, ends.astype(np.int32)), shape=(num, 2**31 - 1))


def jaccard(sets: csr_array, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.float64]:
    """Jaccard similarity of sets `left[i]` and `right[i]`: shared grams over all grams of the two."""
    sizes = np.diff(sets.indptr)
    found = np.empty(len(left))
    for part in slices(sizes[left] + sizes[right], limit=_PAIR_CHUNK_GRAMS):
        a, b = left[part], right[part]
        shared = np.diff(sets[a].multiply(sets[b]).tocsr().indptr)
        found[part] = shared / (sizes[a] + sizes[b] - shared)
    return found


def windows(texts: Sequence[str], *, length: int) -> Grams:
    """Hash every run of `length` letters, digits and marks, whatever blanks, line ends, hyphens and other signs stand between.

    Args:
        texts: of which shorter ones have no window.
        length: a power of two.
    """
    codes, starts = _normalised(texts)
    solid = _kinds_of(codes) == _WORD
    counts = np.concatenate([[0], np.cumsum(solid)])
    codes, starts = codes[solid].astype(np.uint64), counts[starts]
    hashes = codes * np.uint64(0x9E3779B97F4A7C15)
    hashes ^= hashes >> np.uint64(32)
    step = 1
    while step < length:
        # Two neighbouring windows make one of twice the length.
        hashes = (
            (hashes[:-step] * np.uint64(0xC2B2AE3D27D4EB4F)) ^ (hashes[step:] + np.uint64(step))
            if len(hashes) > step
            else hashes[:0]
        )
        hashes ^= hashes >> np.uint64(29)
        step *= 2
    sizes = np.maximum(np.diff(starts) - length + 1, 0)
    new_starts = np.concatenate([[0], np.cumsum(sizes)])
    places = np.arange(new_starts[-1]) + np.repeat(starts[:-1] - new_starts[:-1], sizes)
    return Grams(hashes[places], new_starts)


def in_chunks(texts: Sequence[str]) -> Iterator[slice]:
    """Cut a long list into parts of about 400,000 characters, so that arrays stay in the processor's caches."""
    return slices((len(text) + 1 for text in texts), limit=CHUNK_CHARACTERS)


def slices(sizes: Iterable[int], *, limit: int) -> Iterator[slice]:
    """Cut a list into parts, each as short as reaches a total size."""
    start, total, i = 0, 0, -1
    for i, size in enumerate(sizes):
        total += int(size)
        if total >= limit:
            yield slice(start, i + 1)
            start, total = i + 1, 0
    if start <= i:
        yield slice(start, i + 1)


def _normalised(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """The characters of all normalised texts end to end, and where each text starts."""
    end = chr(_ROW_END)
    joined = end.join(texts)
    if joined.count(end) != len(texts) - 1:
        joined = end.join(text.replace(end, " ") for text in texts)
    if not joined.isascii():
        joined = unicodedata.normalize("NFKC", joined)
    joined = joined.casefold() + end
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds_of(codes)
    gap = kinds == _GAP
    # Of a run of gaps the first stays; then one before the end of a text goes too.
    after = np.concatenate([[True], kinds[:-1] >= _GAP])
    stays = ~(gap & after)
    codes, kinds, gap = codes[stays], kinds[stays], gap[stays]
    ends = kinds == _END
    trailing = gap & np.concatenate([ends[1:], [False]])
    codes, gap, ends = codes[~trailing], gap[~trailing], ends[~trailing]
    codes = np.where(gap, np.uint32(_BLANK), codes)
    places = np.flatnonzero(ends)
    starts = np.concatenate([[0], places + 1 - np.arange(1, len(places) + 1)]).astype(np.intp)
    return codes[~ends], starts


def _kinds_of(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """What each character is; Unicode is asked once about each, because the whole table takes a third of a second."""
    kinds = _kinds[codes]
    for code in np.unique(codes[kinds == _UNKNOWN]).tolist():
        of = {"P": _GAP, "Z": _GAP, "C": _GAP, "S": _SYMBOL}
        _kinds[code] = _END if code == _ROW_END else of.get(unicodedata.category(chr(code))[0], _WORD)
    return _kinds[codes]


def _mixed(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's last step: every bit of the result hangs on every bit given."""
    hashes ^= hashes >> np.uint32(16)
    hashes *= np.uint32(0x85EBCA6B)
    hashes ^= hashes >> np.uint32(13)
    hashes *= np.uint32(0xC2B2AE35)
    hashes ^= hashes >> np.uint32(16)
    return hashes
