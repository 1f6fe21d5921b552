"""The token ledger in words."""

from typing import Any

import pytest

from tunesmith.data.ledger import Account
from tunesmith.pipeline import tools_warning


@pytest.mark.parametrize(("number", "begins"), [(1, "1 row offers tools"), (1200, "1,200 rows offer tools")])
def test_rows_whose_tools_are_not_seen_are_told_with_their_number(number: int, begins: str) -> None:
    said = tools_warning(Account(num_unseen_tools=number).as_json())
    assert said is not None
    assert said.startswith(begins)
    assert "the model never sees what it could call" in said


@pytest.mark.parametrize("account", [Account().as_json(), {}])
def test_where_every_tool_is_seen_nothing_is_said(account: dict[str, Any]) -> None:
    assert tools_warning(account) is None
