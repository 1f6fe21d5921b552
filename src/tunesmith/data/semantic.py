"""Semantic near-duplicates: texts of nearly the same words, whatever their order and form, by latent semantic analysis.

Hashed words of two letters or more are weighted by TF-IDF and brought down to 128 dimensions by a truncated SVD of
the texts themselves (Deerwester et al. 1990). It finds sentences turned round, and words exchanged for others that the data uses
alike. It finds no paraphrase in words that the data never uses together: no language model stands behind it. It may take rows that
differ in one number or name for the same, so it is no default. Above 4,000 texts only those in one cell of a k-means are compared
(SemDeDup, Abbas et al. 2023): linear, at the price of pairs on both sides of a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Like", "earlier_likes"]

_DIMENSIONS = 128
_CELL = 1000
_COMPARED_AT_ONCE = 4000


class Like(NamedTuple):
    """An earlier text that means nearly the same."""

    text: int
    cosine: float


def earlier_likes(texts: Sequence[str], *, labels: Sequence[str | None], threshold: float) -> list[Like | None]:
    """For each text the most alike of the earlier ones that stand for themselves, or None where the text stands for itself.

    Args:
        texts: in the order in which the first of two is kept.
        labels: of the texts; only texts with one label are alike.
        threshold: cosine, above 0 and up to 1, from which two are alike.
    """
    vectors = _vectors(texts)
    found: list[Like | None] = [None] * len(texts)
    kinds = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    numbers = np.array([kinds[label] for label in labels], np.intp)
    for cell in _cells(vectors):
        stands = np.zeros(len(cell), bool)
        likes = np.where(numbers[cell, None] == numbers[cell], vectors[cell] @ vectors[cell].T, -1)
        for i, row in enumerate(cell):
            earlier = np.where(stands[:i], likes[i, :i], -1)
            best = int(earlier.argmax()) if i else 0
            if i and earlier[best] >= threshold:
                found[row] = Like(int(cell[best]), min(float(earlier[best]), 1.0))
            else:
                stands[i] = True
    return found


def _vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors; texts without words have none and are like nothing."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.preprocessing import normalize

    if len(texts) < 2:
        return np.zeros((len(texts), 1), np.float32)
    counts = HashingVectorizer(n_features=2**18, alternate_sign=False, norm=None, dtype=np.float32).transform(texts)
    # An empty column changes no product, and the decomposition takes time and memory by the column. It wants two at least.
    counts = counts[:, np.union1d(counts.indices, [0, 1])]
    dimensions = min(_DIMENSIONS, len(texts) - 1, counts.shape[1])
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    with np.errstate(invalid="ignore"):  # of texts that are all equal it divides their variance, 0, by itself
        reduced = TruncatedSVD(dimensions, random_state=0).fit_transform(weighted)
    vectors: NDArray[np.float32] = normalize(reduced).astype(np.float32)
    return vectors


def _cells(vectors: NDArray[np.float32]) -> list[NDArray[np.intp]]:
    if len(vectors) <= _COMPARED_AT_ONCE:
        return [np.arange(len(vectors))]
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(len(vectors) // _CELL, random_state=0, n_init=1, batch_size=4096).fit_predict(vectors)
    order = np.argsort(means, kind="stable")
    cells = np.split(order, np.flatnonzero(np.diff(means[order])) + 1)
    return [part for cell in cells for part in np.array_split(cell, -(-len(cell) // _COMPARED_AT_ONCE))]
