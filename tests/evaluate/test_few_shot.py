"""Examples are the nearest training questions, never ones that hand over the answer; how many is chosen on validation rows."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tunesmith.evaluate import Likelihood
from tunesmith.evaluate.few_shot import Examples, sweep_examples
from tunesmith.evaluate.prompts import Prompted
from tunesmith.evaluate.report import METRICS
from tunesmith.evaluate.rouge import tokenise
from tunesmith.evaluate.term_index import TermIndex
from tunesmith.evaluate.trials import Trial
from tunesmith.records import Message, Record, Role, Source

QUESTIONS = [
    "When do you open on Monday?",
    "When do you open on Friday?",
    "Do you sell shoes for children?",
    "How much is delivery abroad, and how long does delivery take?",
    "Can I return a coat that I bought in the sale?",
    "Do you open on Sunday when the sale begins?",
    "星期一几点开门?",
]


def row(
    place: int, question: str, answer: str = "yes", *, cluster: str = "", group: str | None = None, tools: str = ""
) -> Record:
    messages = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Record(
        id=f"r{place}", source=Source(path="x", line=place + 1), messages=messages, cluster=cluster, group=group, tools=tools
    )


ROWS = [row(place, question, f"answer {place}") for place, question in enumerate(QUESTIONS)]


@pytest.mark.parametrize("asked", ["When do you open on Tuesday?", "delivery delivery of shoes", "几点开门", "xyzzy"])
def test_likeness_equals_scikit_learns_tf_idf(asked: str) -> None:
    vectorizer = TfidfVectorizer(analyzer=tokenise, sublinear_tf=True)
    expected = (vectorizer.fit_transform(QUESTIONS) @ vectorizer.transform([asked]).T).toarray()[:, 0]
    np.testing.assert_allclose(TermIndex(QUESTIONS).likeness(tokenise(asked)), expected, atol=1e-12)


def test_the_nearest_questions_come_first() -> None:
    found = Examples(ROWS).nearest("Do you open on Friday or Monday?", number=3)
    assert [shown.question for shown in found][:2] == ["When do you open on Monday?", "When do you open on Friday?"]
    assert found[0].answer == "answer 0"
    assert len(found) == 3


def test_an_example_never_asks_the_same_nor_comes_from_the_rows_own_cluster_or_group() -> None:
    asked = row(9, "When do you open on Monday?", cluster="c1", group="g1")
    pool = [
        row(0, "when do you open on MONDAY"),
        row(1, "When do you open on Mondays?", cluster="c1"),
        row(2, "Mondays: when do you open?", group="g1"),
        row(3, "When do you open on Friday?", cluster="c2"),
        row(4, "when do you open on Friday"),
        row(5, "Do you sell shoes?"),
    ]
    found = Examples(pool).nearest("When do you open on Monday?", number=8, row=asked)
    assert [shown.question for shown in found] == ["When do you open on Friday?", "Do you sell shoes?"]
    prompted = Prompted(Scripted({}), demonstrate=Examples(pool).showing(8), asked=[asked])
    told = [message.content for message in prompted.prompt(asked.messages[:1])]
    assert told == ["Do you sell shoes?", "yes", "When do you open on Friday?", "yes", "When do you open on Monday?"]


def test_rows_that_hang_on_what_is_not_shown_are_no_examples() -> None:
    long = Record(id="l", source=Source(path="x", line=1), messages=(*ROWS[0].messages, *ROWS[1].messages))
    text = Record(id="t", source=Source(path="x", line=1), text="plain")
    assert len(Examples([long, text, row(1, "Q?", tools="[1]")])) == 0
    system = Record(id="s", source=Source(path="x", line=1), messages=(Message(role=Role.SYSTEM, content="S"), *ROWS[0].messages))
    assert Examples([system]).nearest("open?", number=1)[0].question == QUESTIONS[0]


class Scripted:
    """Answers right as often as is said for a number of examples; its row number stands in the question."""

    def __init__(self, num_right: dict[int, int]) -> None:
        self.num_right = num_right

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        return [
            "right" if int(turns[-1].content.split()[1]) < self.num_right[len(turns) // 2] else "wrong" for turns in conversations
        ]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        return [Likelihood(float(len(record.messages)), 4, 4) for record in records]


VALIDATION = [row(100 + place, f"Question {place} of ten?", "right") for place in range(10)]


@pytest.mark.parametrize(
    ("num_right", "best"), [({1: 3, 2: 5, 4: 9, 8: 6}, 4), ({1: 5, 2: 5, 4: 5, 8: 5}, 1), ({1: 1, 2: 7, 4: 2, 8: 7}, 2)]
)
def test_the_number_of_examples_that_does_best_on_validation_rows_is_taken_and_of_equals_the_fewest(
    num_right: dict[int, int], best: int
) -> None:
    examples = Examples([row(place, f"word{place} of ten") for place in range(12)])
    trial = Trial(VALIDATION, metrics={"classification": METRICS["classification"]}, max_rows=24)
    arm = Scripted(num_right)
    swept = sweep_examples(lambda number: Prompted(arm, demonstrate=examples.showing(number)), trial=trial)
    assert swept.details["number"] == best
    assert swept.details["metric"] == "accuracy"
    assert [(one["number"], one["value"]) for one in swept.details["sweep"]] == [
        (n, 10.0 * right) for n, right in num_right.items()
    ]
    assert len(swept.arm.prompt(VALIDATION[0].messages[:1])) == 2 * best + 1
    assert trial.num_answers == 40


def test_perplexity_alone_chooses_by_likelihood_the_lower_the_better() -> None:
    examples = Examples([row(place, f"word{place} of ten") for place in range(12)])
    trial = Trial(VALIDATION, metrics={"perplexity": METRICS["perplexity"]}, max_rows=24)
    swept = sweep_examples(lambda number: Prompted(Scripted({}), demonstrate=examples.showing(number)), trial=trial)
    assert trial.metric == "perplexity"
    assert swept.details["number"] == 1
    # 2 messages of its own and 2 of the example: 4 nats over 4 tokens.
    assert swept.details["sweep"][0] == {"number": 1, "value": round(np.e, 4), "tie_break": None}


def test_between_arms_that_get_no_row_right_how_near_they_come_decides() -> None:
    class Near(Scripted):
        def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
            return ["nearly right" if len(turns) == 9 else "wrong" for turns in conversations]

    examples = Examples([row(place, f"word{place} of ten") for place in range(12)])
    metrics = {name: METRICS[name] for name in ("perplexity", "rouge", "classification")}  # type: ignore[index]
    trial = Trial(VALIDATION, metrics=metrics, max_rows=24)
    assert (trial.metric, trial.tie_break) == ("accuracy", "rougeL")
    swept = sweep_examples(lambda number: Prompted(Near({}), demonstrate=examples.showing(number)), trial=trial)
    assert swept.details["number"] == 4
    # One word of two is right: precision 1/2, recall 1, F 2/3.
    assert swept.details["sweep"][2] == {"number": 4, "value": 0.0, "tie_break": 66.6667}


def test_without_validation_rows_four_are_taken_and_that_is_said() -> None:
    swept = sweep_examples(lambda _number: Prompted(Scripted({})), trial=None)
    assert swept.details == {"number": 4, "sweep": [], "note": "no validation rows to choose it on"}
