"""The search for an instruction climbs, stops, keeps its trail, and spends no more answers than it may."""

from collections.abc import Sequence

import pytest

from tunesmith.evaluate import Likelihood
from tunesmith.evaluate.instructions import SEEDS, Edit, Wording, edits_for, search_instruction
from tunesmith.evaluate.prompts import Prompted
from tunesmith.evaluate.report import METRICS
from tunesmith.evaluate.term_index import FactSheet
from tunesmith.evaluate.trials import Trial
from tunesmith.records import Message, Record, Role, Source


def row(place: int, question: str, answer: str) -> Record:
    messages = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Record(id=f"r{place}", source=Source(path="x", line=place + 1), messages=messages)


VALIDATION = [row(place, f"Question {place} of ten?", "right") for place in range(10)]
EDITS = [Edit("a", "Alpha."), Edit("b", "Beta."), Edit("c", "Gamma."), Edit("facts", adds_facts=True)]


class Pleased:
    """Gets as many rows right as the words in its system prompt are worth."""

    def __init__(self, worth: dict[str, int]) -> None:
        self.worth = worth

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        said = [turns[0].content if turns[0].role is Role.SYSTEM else "" for turns in conversations]
        scores = [sum(value for word, value in self.worth.items() if word in system) for system in said]
        return [
            "right" if int(turns[-1].content.split()[1]) < score else "wrong"
            for turns, score in zip(conversations, scores, strict=True)
        ]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        return [Likelihood(1.0, 1, 1) for _ in records]


def search(worth: dict[str, int], *, max_answers: int = 1000) -> tuple[Wording, dict[str, object]]:
    trial = Trial(VALIDATION, metrics={"classification": METRICS["classification"]}, max_rows=24)
    arm = Pleased(worth)
    found = search_instruction(
        lambda wording: Prompted(arm, instruction=wording.instruction, facts=FactSheet("FACTS") if wording.has_facts else None),
        trial=trial,
        edits=EDITS,
        max_answers=max_answers,
    )
    assert found.details["num_answers"] == trial.num_answers <= max_answers
    return found.wording, found.details


def test_edits_that_help_are_kept_one_after_the_other() -> None:
    wording, details = search({"helpful": 1, "Gamma": 2, "Alpha": 1, "FACTS": 3, "Beta": -1})
    assert wording == Wording("You are a helpful assistant. Gamma. Alpha.", has_facts=True)
    assert details["stopped"] == "no edit is better"
    assert details["metric"] == "accuracy"
    trail = details["trail"]
    assert isinstance(trail, list)
    assert [step["instruction"] for step in trail[: len(SEEDS)]] == list(SEEDS)
    assert max(step["value"] for step in trail) == 70.0


def test_where_nothing_helps_the_base_stays_as_it_is() -> None:
    wording, details = search({})
    assert wording == Wording("")
    assert len(details["trail"]) == len(SEEDS) + len(EDITS)  # type: ignore[arg-type]


def test_the_search_is_deterministic() -> None:
    worth = {"expert": 2, "Beta": 2, "Alpha": 2}
    assert search(worth) == search(worth)


@pytest.mark.parametrize(("max_answers", "num_tried"), [(30, 3), (59, 5), (60, 6)])
def test_no_more_answers_are_asked_for_than_may_be(max_answers: int, num_tried: int) -> None:
    _, details = search({"helpful": 1}, max_answers=max_answers)
    assert details["num_answers"] == 10 * num_tried
    assert details["stopped"] == "the answers are spent"


def test_too_few_answers_for_one_try_leave_the_base_as_it_is() -> None:
    wording, details = search({"helpful": 1}, max_answers=9)
    assert wording == Wording("")
    assert details["num_answers"] == 0


def test_edits_name_the_words_of_the_domain_and_the_length_of_answers() -> None:
    rows = [row(place, f"Can I return the coat number {place}?", "Yes you can.") for place in range(3)]
    edits = {edit.name: edit.sentence for edit in edits_for(rows, has_facts=True)}
    assert edits["domain"] == "The questions are about coat, number, return."
    assert edits["length"] == "Answer in about 3 words."
    assert "facts" in edits
    assert "labels" not in edits


def test_few_different_answers_are_named_as_labels() -> None:
    rows = [row(place, f"Text {place}", ("positive", "negative")[place % 2]) for place in range(12)]
    edits = {edit.name: edit.sentence for edit in edits_for(rows)}
    assert edits["labels"] == "Answer with one of these and nothing else: negative, positive."
    assert "length" not in edits
    assert "facts" not in edits
