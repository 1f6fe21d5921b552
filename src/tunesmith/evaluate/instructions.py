"""A search for the instruction that suits the base best: seeds of our own, then edits one at a time, judged on validation rows.

Hill climbing: of all edits of the best instruction so far the best is kept if it is better, until none is or the answers that may be
asked for are spent. It is deterministic, and every step is kept. No model writes the variants, so nothing here needs one that can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from tunesmith.evaluate.arms import Answering
from tunesmith.evaluate.questions import question_of
from tunesmith.evaluate.rouge import tokenise
from tunesmith.evaluate.statements import is_content_word
from tunesmith.evaluate.trials import Trial
from tunesmith.records import Record

__all__ = ["SEEDS", "Edit", "Found", "Wording", "edits_for", "search_instruction"]

SEEDS = (
    "",
    "You are a helpful assistant.",
    "Answer the question correctly and completely.",
    "Give the answer that an expert in this field would give, and nothing else.",
    "You answer questions for us. Be polite, exact and short.",
)
"""Where the search begins; the empty one is the base as it is."""
_NUM_DOMAIN_WORDS = 8
_LEAST_LETTERS = 4
_MOST_LABELS = 12
_MOST_LABEL_WORDS = 4


class Wording(NamedTuple):
    """What a prompt says before the question."""

    instruction: str
    has_facts: bool = False


class Edit(NamedTuple):
    """One change."""

    name: str
    sentence: str = ""
    """Added at the end."""
    adds_facts: bool = False

    def apply(self, wording: Wording) -> Wording:
        instruction = " ".join(filter(None, [wording.instruction, self.sentence]))
        return Wording(instruction, wording.has_facts or self.adds_facts)


class Found(NamedTuple):
    """The best wording, and how it was found."""

    wording: Wording
    details: dict[str, Any]


def edits_for(records: Sequence[Record], *, has_facts: bool = False) -> list[Edit]:
    """Edits that suit training rows: their words, their labels where there are few, how long their answers are.

    Args:
        records: of the training split.
        has_facts: whether there is a fact sheet to show.
    """
    questions = [question for record in records if (question := question_of(record)) is not None]
    edits = [
        Edit("one sentence", "Answer in one sentence."),
        Edit("admit", "Say so if you do not know the answer."),
        Edit("no remarks", "Give the answer alone, without remarks."),
        Edit("same language", "Answer in the language of the question."),
    ]
    if words := _domain_words([question.text for question in questions]):
        edits.insert(0, Edit("domain", f"The questions are about {', '.join(words)}."))
    answers = [question.reference.strip() for question in questions]
    labels = Counter(answers)
    if 1 < len(labels) <= min(_MOST_LABELS, len(answers) // 4) and all(len(one.split()) <= _MOST_LABEL_WORDS for one in labels):
        edits.insert(0, Edit("labels", f"Answer with one of these and nothing else: {', '.join(sorted(labels))}."))
    elif answers:
        edits.append(Edit("length", f"Answer in about {max(1, round(median(len(tokenise(one)) for one in answers)))} words."))
    if has_facts:
        edits.insert(0, Edit("facts", adds_facts=True))
    return edits


def search_instruction(
    make: Callable[[Wording], Answering],
    *,
    trial: Trial,
    edits: Sequence[Edit],
    max_answers: int,
) -> Found:
    """Find the wording with the best figure on the trial's rows; of equally good ones the earlier, which is the shorter.

    Args:
        make: the arm asked with a wording.
        trial: validation rows.
        edits: to try.
        max_answers: how many answers may be asked for. The seeds are tried in any case as far as they go.
    """
    climb = _Climb(make, trial=trial, max_answers=max_answers)
    best = climb.best_of(None, [Wording(seed) for seed in SEEDS])
    left = list(edits)
    while best is not None and left:
        better = climb.best_of(best, [edit.apply(best) for edit in left])
        if better == best or better is None:
            break
        left = [edit for edit in left if edit.apply(best) != better]
        best = better
    wording = best or Wording("")
    details = {
        "instruction": wording.instruction,
        "facts": wording.has_facts,
        "metric": trial.metric,
        "tie_break": trial.tie_break,
        "num_rows": trial.num_rows,
        "num_answers": climb.num_answers,
        "stopped": "the answers are spent" if climb.is_spent else "no edit is better",
        "trail": climb.trail,
    }
    return Found(wording, details)


class _Climb:
    """The search as far as it has come."""

    def __init__(self, make: Callable[[Wording], Answering], *, trial: Trial, max_answers: int) -> None:
        self.trail: list[dict[str, Any]] = []
        self.num_answers = 0
        self.is_spent = False
        self._make = make
        self._trial = trial
        self._max_answers = max_answers
        self._known: dict[Wording, tuple[float, float]] = {}

    def best_of(self, best: Wording | None, others: Sequence[Wording]) -> Wording | None:
        """Try some wordings against the best so far."""
        for wording in others:
            if wording in self._known:
                continue
            value = self._try(wording)
            if value is not None and (best is None or value > self._known[best]):
                best = wording
        return best

    def _try(self, wording: Wording) -> tuple[float, float] | None:
        entry: dict[str, Any] = {"instruction": wording.instruction, "facts": wording.has_facts}
        if self.num_answers + self._trial.num_rows > self._max_answers:
            self.is_spent = True
            return None
        figures = self._trial.figures(self._make(wording))
        self.num_answers += self._trial.num_rows
        self.trail.append({**entry, **self._trial.plain(figures)})
        self._known[wording] = self._trial.rank(figures)
        return self._known[wording]


def _domain_words(questions: Sequence[str]) -> list[str]:
    """The words that most questions share, ordinary ones left out."""
    counts = Counter(
        word for text in questions for word in set(tokenise(text)) if len(word) >= _LEAST_LETTERS and is_content_word(word)
    )
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [word for word, count in ranked[:_NUM_DOMAIN_WORDS] if count > 1]
