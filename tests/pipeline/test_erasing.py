"""The request log on the command line: what was answered, what was said of it, and how a user is forgotten while a server writes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import NotFound, UserError
from tunesmith.pipeline.erasing import erase_user
from tunesmith.records import Feedback, Interaction, Message, Role
from tunesmith.store import RequestLog, Store

CLI = CliRunner()


def answered(number: int, *, user: str = "") -> Interaction:
    return Interaction(
        id=f"chatcmpl-{number}",
        deployment="boutique",
        arm=f"boutique@{number}",
        messages=(Message(role=Role.USER, content=f"Question {number}?\nPlease."),),
        answer=f"Answer {number}.",
        num_prompt_tokens=5,
        num_completion_tokens=3,
        first_token_ms=11.6,
        total_ms=25.2,
        finish_reason="stop",
        user=user,
    )


def said(number: int, **fields: Any) -> Feedback:
    given = {"interaction": f"chatcmpl-{number}", "name": "helpful", "kind": "thumbs", "value": False, "source": "human"}
    return Feedback(**{"id": f"fb-{number}", **given, **fields})


def log_of(store: Store, **options: Any) -> RequestLog:
    store.root.mkdir(parents=True, exist_ok=True)
    return RequestLog(store.requests, **options)


def called(store: Store, *arguments: str) -> str:
    result = CLI.invoke(app, ["requests", *arguments, "--workspace", str(store.root)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "work")


def test_an_empty_workspace_has_no_answers_and_stays_empty(store: Store) -> None:
    assert "no answers" in called(store, "list")
    assert json.loads(called(store, "list", "--json")) == []
    assert json.loads(called(store, "erase", "ada", "--json")) == {"erased": 0}
    assert not store.root.exists()


def test_the_newest_answers_are_listed_and_one_is_shown_with_what_was_said_of_it(store: Store) -> None:
    log = log_of(store, with_content=True)
    for number in range(5):
        log.add(answered(number))
    log.add_feedback(said(4, by="\x1b[31mLisa", rationale="too\nshort"))
    log.add_feedback(said(4, id="fb-later", value=True, overrides="fb-4"))
    log.close()
    listed = called(store, "list", "--last", "2")
    assert [line.split()[0] for line in listed.splitlines()] == ["answer", "chatcmpl-3", "chatcmpl-4"]
    assert [one["id"] for one in json.loads(called(store, "list", "--json"))] == [f"chatcmpl-{i}" for i in range(5)]
    shown = called(store, "show", "chatcmpl-4")
    for part in ("boutique@4", "Question 4? Please.", "Answer 4.", "12 ms", "helpful = down", "overridden since", "helpful = up"):
        assert part in shown
    assert "\x1b" not in shown, "what clients wrote moves no cursor"
    found = json.loads(called(store, "show", "chatcmpl-4", "--json"))
    assert (found["answer"], [one["is_overridden"] for one in found["feedback"]]) == ("Answer 4.", [True, False])
    with pytest.raises(NotFound, match="chatcmpl-9"):
        called(store, "show", "chatcmpl-9")


def test_texts_that_were_not_kept_are_said_to_be_missing(store: Store) -> None:
    log = log_of(store)
    log.add(answered(1, user="ada"))
    log.close()
    assert "--log-content" in called(store, "show", "chatcmpl-1")
    found = json.loads(called(store, "show", "chatcmpl-1", "--json"))
    assert (found["answer"], found["messages"], "user" in found) == (None, None, False)


def test_a_user_is_forgotten_while_a_server_goes_on_writing(store: Store) -> None:
    serving = log_of(store, with_content=True)
    for number in range(60):
        serving.add(answered(number, user="ada" if number % 3 == 0 else "ben"))
    serving.add_feedback(said(0))
    serving.add_feedback(said(1))
    assert called(store, "erase", "ada") == "20 answers erased\n"
    assert called(store, "erase", "Ada") == "0 answers erased\n", "letter for letter"
    serving.add(answered(100, user="ben"))
    serving.close()
    left = {one["id"] for one in json.loads(called(store, "list", "--last", "100", "--json"))}
    assert left == {f"chatcmpl-{i}" for i in range(60) if i % 3} | {"chatcmpl-100"}
    with sqlite3.connect(store.requests) as connection:
        assert connection.execute("SELECT id FROM feedback").fetchall() == [("fb-1",)]
    assert serving.dropped == {"content": 0, "interactions": 0}


def test_erasing_leaves_old_rows_of_others_where_they_are(store: Store) -> None:
    log = log_of(store, keep_days=None)
    log.add(answered(1, user="ben"))
    log.close()
    with sqlite3.connect(store.requests) as connection:
        connection.execute("UPDATE interactions SET recorded_at = 0")
    assert erase_user("ada", store=store) == 0
    assert len(json.loads(called(store, "list", "--json"))) == 1


def test_nobody_in_particular_and_a_file_that_is_no_log_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match="name is empty"):
        erase_user("", store=store)
    store.root.mkdir(parents=True)
    store.requests.write_text("no database")
    for arguments in (["list"], ["show", "x"], ["erase", "ada"]):
        with pytest.raises(UserError, match=r"requests\.db"):
            called(store, *arguments)
