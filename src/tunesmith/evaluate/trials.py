"""How good a prompt is on validation rows: one figure, by which prompts are chosen. Test rows are never seen here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tunesmith.errors import DataError
from tunesmith.evaluate.arms import Answering, Arm
from tunesmith.evaluate.metric import Metric, Outcome
from tunesmith.evaluate.questions import Question, choose_rows, question_of
from tunesmith.evaluate.reading import leading, reading_of
from tunesmith.records import Record

__all__ = ["Figures", "Trial"]


class Figures(NamedTuple):
    """How good an arm is; NaN where it could not be measured."""

    value: float
    """In the metric that leads."""
    tie_break: float
    """In the one that decides between arms that are equal in the first, such as models too small to get one row right."""


class Trial:
    """Validation rows with the metrics that judge answers to them.

    Args:
        records: of the validation split.
        metrics: by name. The one that leads (`reading.leading`) decides.
        max_rows: how many rows are asked at most, chosen as test rows are.
        on_answers: called with how many answers were asked for so far.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        metrics: Mapping[str, Metric],
        max_rows: int,
        on_answers: Callable[[int], None] | None = None,
    ) -> None:
        asked = [(record, question) for record in records if (question := question_of(record)) is not None]
        chosen = choose_rows([record for record, _ in asked], max_rows=max_rows)
        self.rows: list[tuple[Record, Question]] = [asked[place] for place in chosen]
        self.num_answers = 0
        """Answers asked for so far."""
        self._metrics = metrics
        self._on_answers = on_answers
        self.metric, self.tie_break = self._find_metrics()
        """What decides, and what does among equals; "" where nothing can be measured on these rows."""

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @property
    def records(self) -> list[Record]:
        return [record for record, _ in self.rows]

    def figures(self, arm: Answering) -> Figures:
        """Ask the arm all rows of the trial."""
        outcomes = [Outcome(record, question.reference) for record, question in self.rows]
        if reading_of(self.metric).needs_answers:
            prompts, tools = [question.prompt for _, question in self.rows], [question.tools for _, question in self.rows]
            answers = arm.generate(prompts, tools=tools) if any(tools) else arm.generate(prompts)
            outcomes = [row._replace(answer=answer) for row, answer in zip(outcomes, answers, strict=True)]
        elif isinstance(arm, Arm):
            given = arm.likelihood(self.records)
            outcomes = [row._replace(likelihood=likelihood) for row, likelihood in zip(outcomes, given, strict=True)]
        self.num_answers += self.num_rows
        if self._on_answers is not None:
            self._on_answers(self.num_answers)
        found = self._measure(outcomes)
        return Figures(found.get(self.metric, math.nan), found.get(self.tie_break, math.nan))

    def rank(self, figures: Figures) -> tuple[float, float]:
        """Figures turned so that more is better; one that could not be measured is the worst."""
        return _goodness(figures.value, metric=self.metric), _goodness(figures.tie_break, metric=self.tie_break)

    def plain(self, figures: Figures) -> dict[str, float | None]:
        """Figures as JSON has them."""
        return {name: round(value, 4) if math.isfinite(value) else None for name, value in figures._asdict().items()}

    def _measure(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        found: dict[str, float] = {}
        for metric in self._metrics.values():
            try:
                measured = metric(outcomes)
            except DataError:  # there is no likelihood to measure
                continue
            for name, statistics in measured.items():
                if statistics.counted.any():
                    found[name] = float(np.asarray(statistics.figure(statistics.rows[statistics.counted].sum(axis=0))))
        return found

    def _find_metrics(self) -> tuple[str, str]:
        """Which figures these rows give is known once their own references have been judged as answers."""
        perfect = [Outcome(record, question.reference, question.reference) for record, question in self.rows]
        names = list(self._measure(perfect)) if perfect else []
        names += ["perplexity"] if "perplexity" in self._metrics else []
        first = leading(names) or ""
        kind = reading_of(first).needs_answers
        return first, leading([name for name in names if name != first and reading_of(name).needs_answers == kind]) or ""


def _goodness(value: float, *, metric: str) -> float:
    if math.isnan(value):
        return -math.inf
    return -value if reading_of(metric).lower_is_better else value
