"""How sure a model is of each label, and whether it may be believed: the likelihood of every label as the answer, made probabilities.

Only for tasks with few short labels, such as `pos` and `neg`: of a row each label in turn is put in place of the answer.

Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tunesmith.evaluate.arms import Answering, Arm
from tunesmith.evaluate.classification import calibration_statistics, reliability
from tunesmith.evaluate.metric import Statistics
from tunesmith.evaluate.questions import Question
from tunesmith.records import Message, Record, Role

__all__ = ["Reliability", "calibrate", "label_probabilities", "labels_among"]

_MAX_LABELS = 12
_LONGEST = 40
"""Characters of a label; longer answers are sentences."""
_AT_ONCE = 256

Reliability = dict[str, list[tuple[float, float, int]]]
"""arm -> for each bin the mean certainty, the share that was right, and how many rows it has."""


def labels_among(references: Sequence[str]) -> list[str]:
    """The labels of a task, sorted; none where the answers are no labels: too many different ones, or too long."""
    labels = sorted({reference.strip() for reference in references})
    is_task = 2 <= len(labels) <= _MAX_LABELS and len(references) >= 2 * len(labels)
    return labels if is_task and all(0 < len(label) <= _LONGEST for label in labels) else []


def label_probabilities(
    arm: Arm, *, records: Sequence[Record], questions: Sequence[Question], labels: Sequence[str]
) -> list[dict[str, float] | None]:
    """For each question the probability of each label, from their likelihoods as answers; None where all are impossible.

    Args:
        arm: the model.
        records: the rows that were asked.
        questions: one for each.
        labels: what may be answered.
    """
    asked = [
        replace(record, id=f"{record.id}:{number}", messages=(*question.prompt, Message(role=Role.ASSISTANT, content=label)))
        for record, question in zip(records, questions, strict=True)
        for number, label in enumerate(labels)
    ]
    found = [one for start in range(0, len(asked), _AT_ONCE) for one in arm.likelihood(asked[start : start + _AT_ONCE])]
    rows: list[dict[str, float] | None] = []
    for start in range(0, len(found), len(labels)):
        logs = [
            -one.nll if one.num_tokens and math.isfinite(one.nll) else -math.inf for one in found[start : start + len(labels)]
        ]
        highest = max(logs)
        weights = [math.exp(log - highest) for log in logs] if math.isfinite(highest) else []
        rows.append({label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)} if weights else None)
    return rows


def calibrate(
    arms: Mapping[str, Answering],
    *,
    records: Sequence[Record],
    questions: Mapping[int, Question],
    on_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[dict[str, Mapping[str, Statistics]], Reliability]:
    """Calibration error and Brier score of every arm that gives likelihoods, and the picture of it.

    Args:
        arms: by name.
        records: all test rows.
        questions: those that were asked, by the place of their row.
        on_progress: hears which arm is done.

    Returns:
        arm -> metric -> statistics over all rows; and the reliability of each. Both empty where the answers are no labels.
    """
    labels = labels_among([question.reference for question in questions.values()])
    judged = {name: arm for name, arm in arms.items() if isinstance(arm, Arm)} if labels else {}
    statistics: dict[str, Mapping[str, Statistics]] = {}
    pictures: Reliability = {}
    for name, arm in judged.items():
        asked = [records[place] for place in questions]
        found = label_probabilities(arm, records=asked, questions=list(questions.values()), labels=labels)
        if on_progress:
            on_progress(f"{name}: how sure of each label", len(asked), len(asked))
        by_place = dict(zip(questions, found, strict=True))
        right = [questions[place].reference.strip() if place in questions else "" for place in range(len(records))]
        statistics[name] = calibration_statistics([by_place.get(place) for place in range(len(records))], references=right)
        sure = [(max(row.items(), key=lambda pair: pair[1]), right[place]) for place, row in by_place.items() if row]
        pictures[name] = reliability([p for (_, p), _ in sure], hits=[label == truth for (label, _), truth in sure])
    return statistics, pictures
