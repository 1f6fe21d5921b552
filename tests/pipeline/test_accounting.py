"""The token ledger in words."""

from typing import Any

import pytest

from tunesmith.data.ledger import Account
from tunesmith.pipeline import account_in_words, passes_in_words, tools_warning


@pytest.mark.parametrize(("number", "begins"), [(1, "1 row offers tools"), (1200, "1,200 rows offer tools")])
def test_rows_whose_tools_are_not_seen_are_told_with_their_number(number: int, begins: str) -> None:
    said = tools_warning(Account(num_unseen_tools=number).as_json())
    assert said is not None
    assert said.startswith(begins)
    assert "the model never sees what it could call" in said


@pytest.mark.parametrize("account", [Account().as_json(), {}])
def test_where_every_tool_is_seen_nothing_is_said(account: dict[str, Any]) -> None:
    assert tools_warning(account) is None


def passed(sequences: int, tokens: int, epochs: float) -> dict[str, object]:
    return {"sequences": sequences, "tokens": tokens, "supervised": tokens, "epochs": epochs}


def test_each_source_says_how_often_it_is_read_and_one_that_is_not_says_so() -> None:
    sources = {"a": passed(6, 300, 1.5), "b": passed(2, 100, 4.0), "c": passed(0, 0, 0.0)}
    assert passes_in_words(sources) == [
        "a: read 1.5 times, 300 tokens (75%)",
        "b: read 4.0 times, 100 tokens (25%)",
        "c: not read at all",
    ]
    assert passes_in_words({"a": sources["a"]}) == []


def test_supervised_tokens_are_told_as_lost_with_their_rows_too() -> None:
    account = {
        "all": {"rows": 5, "tokens": 500, "supervised": 200},
        "kept": {"rows": 3, "tokens": 300, "supervised": 150, "masked": 150},
        "truncated": {"rows": 1, "tokens": 40, "supervised": 10},
        "dropped": {"too_long": {"rows": 2, "tokens": 160, "supervised": 40}},
        "split_rows": 0,
        "repeated_tokens": 0,
    }
    assert account_in_words(account) == (
        "300 tokens of 3 rows · 150 supervised (50%) · 1 row cut, 10 supervised tokens lost (5.00%) · "
        "2 rows left out, 40 supervised tokens lost: 2 too_long"
    )
