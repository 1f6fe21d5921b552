"""How sure a model is of each label, on models that are as sure as they are told to be."""

import math
import random
from collections.abc import Sequence

import pytest

from tunesmith.evaluate import EvaluateConfig, Likelihood, evaluate
from tunesmith.evaluate.choices import label_probabilities, labels_among
from tunesmith.evaluate.questions import question_of
from tunesmith.records import Message, Record, Role, Source


def row(place: int, label: str) -> Record:
    turns = (Message(role=Role.USER, content=f"Review {place}"), Message(role=Role.ASSISTANT, content=label))
    return Record(id=f"r{place}", source=Source(path="x", line=place + 1), messages=turns)


DRAW = random.Random(0)
ROWS = [row(place, DRAW.choice(["neg", "pos"])) for place in range(400)]


class Sure:
    """Says `pos` with a certainty of each row's own, which is right as often as it says, or not."""

    def __init__(self, *, is_honest: bool) -> None:
        draw = random.Random(1)
        self.pos: dict[str, float] = {}
        for one in ROWS:
            certainty = draw.choice([0.6, 0.9])
            is_right = draw.random() < (certainty if is_honest else 0.5)
            truth = one.messages[-1].content == "pos"
            self.pos[one.messages[0].content] = certainty if truth == is_right else 1 - certainty

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        return ["pos" if self.pos[turns[-1].content] > 0.5 else "neg" for turns in conversations]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        found = []
        for one in records:
            p = self.pos[one.messages[0].content]
            # Half of the mass lies on answers that are no label, as in a real model.
            found.append(Likelihood(-math.log((p if one.messages[-1].content == "pos" else 1 - p) / 2), 1, 3))
        return found


def test_probabilities_are_those_of_the_labels_among_themselves() -> None:
    arm = Sure(is_honest=True)
    questions = [question for one in ROWS if (question := question_of(one)) is not None]
    found = label_probabilities(arm, records=ROWS, questions=questions, labels=["neg", "pos"])
    assert [one["pos"] for one in found if one] == pytest.approx(list(arm.pos.values()))
    assert all(one is not None and sum(one.values()) == pytest.approx(1) for one in found)


def test_a_model_that_is_as_often_right_as_it_says_is_told_from_one_that_is_not() -> None:
    arms = {"base": Sure(is_honest=False), "tuned": Sure(is_honest=True)}
    report = evaluate(ROWS, arms=arms, config=EvaluateConfig(metrics=("classification",), max_rows=400))
    honest, vain = report.scores["tuned"], report.scores["base"]
    assert honest["ece"].value < 6
    assert vain["ece"].value > 20
    assert honest["brier"].value < vain["brier"].value
    assert report.differences["tuned"]["ece"].high is not None
    assert report.differences["tuned"]["ece"].high < 0
    bins = report.details["reliability"]["tuned"]
    assert [round(certainty, 6) for certainty, _, _ in bins] == [0.6, 0.9]
    assert sum(number for _, _, number in bins) == 400
    for certainty, share, _ in bins:
        assert share == pytest.approx(certainty, abs=0.08)


@pytest.mark.parametrize(
    ("references", "labels"),
    [
        (["a", "b "] * 4, ["a", "b"]),
        (["a"] * 8, []),
        ([f"answer {i}" for i in range(8)], []),
        (["x" * 50, "y"] * 4, []),
        (["", "y"] * 4, []),
        ([f"l{i % 20}" for i in range(80)], []),
    ],
)
def test_only_few_short_answers_that_come_again_are_labels(references: list[str], labels: list[str]) -> None:
    assert labels_among(references) == labels


def test_answers_that_are_no_labels_are_not_asked_for() -> None:
    class Counting(Sure):
        def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
            raise AssertionError(f"{len(records)} likelihoods were asked for")

    rows = [row(place, f"an answer of its own {place}") for place in range(20)]
    report = evaluate(rows, arms={"tuned": Counting(is_honest=True)}, config=EvaluateConfig(metrics=("classification",)))
    assert "ece" not in report.scores["tuned"]
    assert "reliability" not in report.details
