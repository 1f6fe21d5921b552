"""Examples for a prompt: the training questions nearest to the one that is asked. Needs no model.

An example is never a row of the asked row's own cluster or group, nor one that asks the same: that would hand over the answer.

Reference: Liu et al., "What Makes Good In-Context Examples for GPT-3?", 2022 (arXiv:2101.06804).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tunesmith.evaluate.prompts import Demonstration, Prompted
from tunesmith.evaluate.questions import question_of
from tunesmith.evaluate.rouge import tokenise
from tunesmith.evaluate.term_index import TermIndex
from tunesmith.evaluate.trials import Trial
from tunesmith.records import Message, Record, Role

__all__ = ["NUM_EXAMPLES", "Examples", "Swept", "sweep_examples"]

NUM_EXAMPLES = (1, 2, 4, 8)
"""Numbers of examples that are tried."""
_WITHOUT_SEARCH = 4


class Swept(NamedTuple):
    """The arm with the number of examples that did best on validation rows."""

    arm: Prompted
    details: dict[str, Any]


class Examples:
    """Training rows with one question each, ready to be searched.

    Args:
        records: of the training split. Rows with several turns or with tools are no examples: their answers hang on what is not shown.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._rows: list[Record] = []
        self._shown: list[Demonstration] = []
        for record in records:
            question = question_of(record)
            if question is None or record.tools or [turn.role for turn in _spoken(question.prompt)] != [Role.USER]:
                continue
            self._rows.append(record)
            self._shown.append(Demonstration(question.text, question.reference))
        self._index = TermIndex([shown.question for shown in self._shown])
        self._ranked: dict[tuple[str, ...], list[int]] = {}

    def __len__(self) -> int:
        return len(self._shown)

    def nearest(self, question: str, *, number: int, row: Record | None = None) -> list[Demonstration]:
        """The nearest examples, the nearest first; of equally near ones the earlier row, of equal questions only one.

        Args:
            question: that is asked.
            number: of examples, at most.
            row: that the question comes from, if it is known.
        """
        words = tuple(tokenise(question))
        found: list[Demonstration] = []
        seen = {words}
        for place in self._ranking(words):
            if len(found) == number:
                break
            if self._index.spelled[place] not in seen and not _belong_together(self._rows[place], row):
                seen.add(self._index.spelled[place])
                found.append(self._shown[place])
        return found

    def showing(self, number: int) -> Callable[[Record | None, Sequence[Message]], list[Demonstration]]:
        """What a `Prompted` arm asks for: so many examples for the last question of a conversation."""

        def demonstrate(row: Record | None, conversation: Sequence[Message]) -> list[Demonstration]:
            said = [turn.content for turn in conversation if turn.role is Role.USER]
            return self.nearest(said[-1], number=number, row=row) if said else []

        return demonstrate

    def _ranking(self, words: tuple[str, ...]) -> list[int]:
        if words not in self._ranked:
            self._ranked[words] = self._index.ranking(words)
        return self._ranked[words]


def sweep_examples(make: Callable[[int], Prompted], *, trial: Trial | None) -> Swept:
    """Try several numbers of examples on validation rows; the best is taken, of equally good ones the fewest.

    Args:
        make: the arm with so many examples.
        trial: None where there are no validation rows; then 4 are taken untried.
    """
    if trial is None:
        return Swept(
            make(_WITHOUT_SEARCH), {"number": _WITHOUT_SEARCH, "sweep": [], "note": "no validation rows to choose it on"}
        )
    tried = [(number, trial.figures(make(number))) for number in NUM_EXAMPLES]
    best = max(tried, key=lambda one: (trial.rank(one[1]), -one[0]))[0]
    sweep = [{"number": number, **trial.plain(figures)} for number, figures in tried]
    chosen_by = {"metric": trial.metric, "tie_break": trial.tie_break, "num_rows": trial.num_rows}
    return Swept(make(best), {"number": best, **chosen_by, "sweep": sweep})


def _spoken(turns: Sequence[Message]) -> list[Message]:
    return [turn for turn in turns if turn.role is not Role.SYSTEM]


def _belong_together(example: Record, row: Record | None) -> bool:
    if row is None:
        return False
    return (
        example.id == row.id
        or bool(row.cluster and example.cluster == row.cluster)
        or (row.group is not None and example.group == row.group and example.origin == row.origin)
    )
