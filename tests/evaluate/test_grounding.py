"""Grounding on the boutique's own fact sheet: right answers pass, invented ones do not."""

import json
import random
import re
from pathlib import Path

import pytest
from tests.evaluate.conftest import measured, outcomes_of

from tunesmith.evaluate.grounding import Source, ground, grounding_metric
from tunesmith.evaluate.statements import statements_of

BOUTIQUE = Path(__file__).parents[2] / "examples" / "boutique"
SHEET = (BOUTIQUE / "facts.md").read_text()
ANSWERS = [json.loads(line)["messages"][-1]["content"] for line in (BOUTIQUE / "conversations.jsonl").read_text().splitlines()]


def test_what_the_shop_itself_answers_is_grounded() -> None:
    sheet = Source(SHEET)
    assert len(ANSWERS) > 1500
    assert [answer for answer in sorted(set(ANSWERS)) if ground(answer, sheet=sheet).invented] == []


@pytest.mark.parametrize(
    "answer",
    [
        "You can return items within 60 days.",
        "Sale items can be refunded.",
        "Returns by post cost 5 euros.",
        "Call us on 0123 456 789.",
        "Write to owner@boutique.example.",
        "We are at 12 Baker Street.",
        "On Mondays we are open from 9 am to 5 pm.",
        "You can pay with Bitcoin.",
        "Every coat comes with a lifetime guarantee and free alterations forever.",
    ],
)
def test_an_invented_fact_is_caught(answer: str) -> None:
    assert ground(answer, sheet=Source(SHEET)).invented


def test_a_changed_figure_is_caught_nearly_always() -> None:
    draw, sheet = random.Random(0), Source(SHEET)
    changed = []
    for answer in sorted(set(ANSWERS)):
        numbers = list(re.finditer(r"(?<![\d.:])\d{1,2}(?![\d.:])", answer))
        if numbers:
            match = draw.choice(numbers)
            other = draw.choice([n for n in range(1, 60) if str(n) != match[0]])
            changed.append(answer[: match.start()] + str(other) + answer[match.end() :])
    caught = sum(bool(ground(answer, sheet=sheet).invented) for answer in changed)
    assert len(changed) > 30
    assert caught / len(changed) >= 0.9, f"{caught} of {len(changed)}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Open 9.30am–6 p.m. daily.", [("time", "9:30", ""), ("time", "18:00", "")]),
        ("From 9 to 5 pm.", [("time", "9:00", ""), ("time", "17:00", "")]),
        (
            "It costs €3.50 or 1,200 dollars, 20 % off.",
            [("number", "3.5", "eur"), ("number", "1200", "usd"), ("number", "20", "%")],
        ),
        ("Within two years, or 5 working days.", [("number", "2", "year"), ("number", "5", "day")]),
        ("Mail a.b@c.example now.", [("contact", "a.b@c.example", "")]),
        ("Ask at the Clock Tower.", [("name", "clock tower", "")]),
        ("One of them fits.", []),
        ("Im Laden gibt es Kleider, Hosen und Mäntel aus Wolle.", []),
        ("", []),
    ],
)
def test_statements_are_brought_to_one_form(text: str, found: list[tuple[str, str, str]]) -> None:
    assert [one[:3] for one in statements_of(text, rules=False)] == found


def test_what_the_user_said_may_be_repeated_and_the_context_is_a_source() -> None:
    sheet = Source("Skirts can be exchanged within 45 days.")
    assert ground("Your 3 skirts can be exchanged.", sheet=sheet, said=Source("I bought 3 skirts")).invented == ()
    assert ground("Your 3 skirts can be exchanged.", sheet=sheet).invented


def test_the_figures_are_shares_of_statements_and_of_answers() -> None:
    metric = grounding_metric("Items can be returned within 30 days.\nThe shop opens at 9 am.")
    answers = ["Items can be returned within 30 days. The shop opens at 10 am.", "The shop opens at 9 am.", "Good day!"]
    found = measured(metric, answers, ["x", "x", "x"])
    assert found["grounding"] == pytest.approx(100 * 2 / 3)  # 30 days and 9 am of three statements
    assert found["nothing_invented"] == pytest.approx(100 * 2 / 3)  # the second answer, and the third, which states nothing
    assert metric(outcomes_of(["Good day!"], ["x"])) == {}
