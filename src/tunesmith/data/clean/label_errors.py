"""Labelled texts whose label is likely wrong, by confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068).

Each text is judged by a model that has not seen it: words and pairs of words by TF-IDF, logistic regression, five folds. A label is
in doubt where another class is likelier than that class is on average for its own texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.data.clean.step import Noted, Outcome, Step, Whole
from tunesmith.data.clean_config import LabelSettings
from tunesmith.records import Dropped, Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Doubt", "build", "doubts"]

_NUM_FOLDS = 5
_WORD = r"(?u)\S+"


class Doubt(NamedTuple):
    """A label that is likely another."""

    label: str
    likely: str
    confidence: float
    """How likely the other is, from 0 to 1."""


def build(settings: LabelSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it reads every row before its first outcome."""
    drop = (settings or LabelSettings()).likely_wrong == "drop"

    def judge(rows: Sequence[Record]) -> Iterator[Outcome]:
        labelled = {i: (row.text, row.label) for i, row in enumerate(rows) if row.text is not None and row.label is not None}
        found = doubts([text for text, _ in labelled.values()], [label for _, label in labelled.values()])
        doubted = dict(zip(labelled, found, strict=True))
        for i in range(len(rows)):
            doubt = doubted.get(i)
            if doubt is None:
                yield None
                continue
            detail = f"labelled {doubt.label!r}, likely {doubt.likely!r} ({100 * doubt.confidence:.0f} %)"
            yield (
                Dropped(source=rows[i].source, reason="label_error", detail=detail)
                if drop
                else Noted(None, ("label_error",), detail)
            )

    return Whole(judge)


def doubts(texts: Sequence[str], labels: Sequence[str]) -> list[Doubt | None]:
    """For each text whether its label is in doubt. Classes with fewer texts than folds are not judged.

    Args:
        texts: any texts.
        labels: one for each.
    """
    counts = Counter(labels)
    judged = [i for i, label in enumerate(labels) if counts[label] >= _NUM_FOLDS]
    classes = sorted({labels[i] for i in judged})
    result: list[Doubt | None] = [None] * len(texts)
    if len(classes) < 2:
        return result
    given = [classes.index(labels[i]) for i in judged]
    probabilities = _out_of_fold([texts[i] for i in judged], given, num_classes=len(classes))
    for place, other in _off_diagonal(probabilities, given):
        result[judged[place]] = Doubt(classes[given[place]], classes[other], float(probabilities[place, other]))
    return result


def _off_diagonal(probabilities: NDArray[np.float64], given: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Places off the diagonal of the confident joint (section 3.1), with the class they are counted for."""
    import numpy as np

    labels = np.asarray(given)
    thresholds = np.array([probabilities[labels == j, j].mean() for j in range(probabilities.shape[1])])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = confident.argmax(axis=1)
    wrong = (confident.max(axis=1) >= 0) & (best != labels)
    return ((int(place), int(best[place])) for place in np.flatnonzero(wrong))


def _out_of_fold(texts: Sequence[str], given: Sequence[int], *, num_classes: int) -> NDArray[np.float64]:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    labels = np.asarray(given)
    probabilities = np.zeros((len(texts), num_classes))
    for train, held_out in StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=0).split(np.zeros(len(texts)), labels):
        vectors: Any = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=_WORD)
        try:
            known = vectors.fit_transform([texts[i] for i in train])
        except ValueError:  # not one word in all of them
            return np.full((len(texts), num_classes), 0.0)
        model: Any = LogisticRegression(C=10.0, max_iter=200).fit(known, labels[train])
        probabilities[np.ix_(held_out, model.classes_)] = model.predict_proba(vectors.transform([texts[i] for i in held_out]))
    return probabilities
