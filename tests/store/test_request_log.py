"""The request log on a real file: what is kept, what is shed, what is erased, and what a reader sees meanwhile."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import UserError
from tunesmith.records import Feedback, Interaction, Message, Role
from tunesmith.store.request_log import RequestLog
from tunesmith.store.request_reader import RequestReader

QUESTION = "Do you open on Sundays?"


def answered(number: int = 0, **fields: Any) -> Interaction:
    given: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "deployment": "boutique",
        "arm": "boutique@1",
        "messages": (Message(role=Role.USER, content=QUESTION),),
        "answer": "We do not.",
        "num_prompt_tokens": 5,
        "num_completion_tokens": 3,
        "first_token_ms": 1.5,
        "total_ms": 2.5,
        "finish_reason": "stop",
    }
    return Interaction(**given | fields)


def said(number: int = 0, **fields: Any) -> Feedback:
    given: dict[str, Any] = {
        "id": f"fb-{number}",
        "interaction": "chatcmpl-0",
        "name": "helpful",
        "kind": "thumbs",
        "value": False,
        "source": "human",
    }
    return Feedback(**given | fields)


@pytest.mark.parametrize("with_content", [False, True])
def test_texts_are_kept_only_where_that_was_asked_for(tmp_path: Path, with_content: bool) -> None:
    log = RequestLog(tmp_path / "requests.db", with_content=with_content)
    log.add(answered(user="ada"))
    log.close()
    (logged,) = RequestReader(tmp_path / "requests.db").interactions()
    assert logged.has_content is with_content
    assert logged.interaction == answered(**({} if with_content else {"messages": (), "answer": ""}))
    raw = (tmp_path / "requests.db").read_bytes()
    assert (QUESTION.encode() in raw) is with_content
    assert b"ada" not in raw
    assert (tmp_path / "requests.db").stat().st_mode & 0o777 == 0o600


def test_what_is_sent_twice_counts_once_and_what_differs_is_no_repetition(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.db")
    assert log.add_feedback(said()) == ("kept", True), "it may come before its answer"
    log.add(answered())
    assert log.add_feedback(said()) == ("repeated", False)
    assert log.add_feedback(said(value=True)).kind == "contradicts"
    assert log.add_feedback(said(), key="another").kind == "contradicts", "nobody learns what another has sent"
    assert log.add_feedback(said(1, overrides="fb-9")).kind == "overrides_unknown"
    assert log.add_feedback(said(1, interaction="chatcmpl-7", overrides="fb-0")).kind == "overrides_unknown"
    assert log.add_feedback(said(1, kind="correction", value="We are closed.", overrides="fb-0")).kind == "kept"
    log.close()
    found = list(RequestReader(tmp_path / "requests.db").feedback(interaction="chatcmpl-0"))
    assert [(one.feedback.id, one.feedback.value, one.arm, one.is_overridden) for one in found] == [
        ("fb-0", False, "boutique@1", True),
        ("fb-1", "We are closed.", "boutique@1", False),
    ]


def test_one_key_may_send_so_much_a_day(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.db", max_feedback_per_day=2)
    kinds = [log.add_feedback(said(number), key=key).kind for number, key in enumerate("aaabb")]
    log.close()
    assert kinds == ["kept", "kept", "too_many", "kept", "kept"]


def test_a_crowd_sheds_texts_first_and_rows_last_and_counts_both(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    log = RequestLog(path, with_content=True, max_queue=8)
    log.prune()  # the thread is at work
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    log.add(answered(0))
    while log._waiting:  # the thread has taken it, and waits for the file
        time.sleep(0.001)
    for number in range(1, 12):
        log.add(answered(number))
    assert log.dropped == {"content": 4, "interactions": 3}
    assert log.add_feedback(said()).kind == "busy"
    holder.execute("COMMIT")
    holder.close()
    log.close()
    kept = list(RequestReader(path).interactions())
    assert [one.interaction.id for one in kept] == [f"chatcmpl-{number}" for number in range(9)]
    assert [one.has_content for one in kept] == [True] * 5 + [False] * 4


def test_a_user_is_erased_with_all_that_was_said(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    log = RequestLog(path, with_content=True)
    for number, user in enumerate(["ada", "bob", "ada", ""]):
        log.add(answered(number, user=user, answer=f"to <{user}>"))
        log.add_feedback(said(number, interaction=f"chatcmpl-{number}", rationale=f"by <{user}>"))
    assert log.erase_user("ada") == 2
    assert log.erase_user("") == 0
    log.close()
    assert [one.interaction.id for one in RequestReader(path).interactions()] == ["chatcmpl-1", "chatcmpl-3"]
    assert [one.feedback.id for one in RequestReader(path).feedback()] == ["fb-1", "fb-3"]
    raw = path.read_bytes()
    assert b"<bob>" in raw
    assert b"<ada>" not in raw


def test_what_is_old_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "requests.db", time.time()
    log = RequestLog(path, keep_days=7)
    monkeypatch.setattr("tunesmith.store.request_log.time.time", lambda: now - 8 * 86400)
    log.add(answered(0))
    log.add_feedback(said(0))
    monkeypatch.setattr("tunesmith.store.request_log.time.time", lambda: now)
    log.add(answered(1))
    assert log.prune() == 2
    log.close()
    assert [one.interaction.id for one in RequestReader(path).interactions()] == ["chatcmpl-1"]


def test_it_goes_on_in_the_same_file_and_a_reader_pages_through_it(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    for begin in (0, 600):
        log = RequestLog(path)
        for number in range(begin, begin + 600):
            log.add(answered(number, arm=f"boutique@{number % 2}"))
        log.close()
    reader = RequestReader(path)
    assert len({one.interaction.id for one in reader.interactions()}) == 1200
    assert sum(1 for _ in reader.interactions(arm="boutique@1")) == 600
    times = [one.recorded_at for one in reader.interactions()]
    assert times == sorted(times)
    assert sum(1 for _ in reader.interactions(since=times[700])) + sum(1 for _ in reader.interactions(until=times[700])) == 1200


def test_readers_and_writers_do_not_lose_each_other(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    log, other = RequestLog(path), RequestLog(path)  # two servers over one workspace
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            list(RequestReader(path).interactions())

    reading = threading.Thread(target=read)
    reading.start()
    for number in range(100):
        (log if number % 2 else other).add(answered(number))
    log.close()
    other.close()
    done.set()
    reading.join()
    assert len(list(RequestReader(path).interactions())) == 100
    assert log.dropped == other.dropped == {"content": 0, "interactions": 0}


def test_what_is_no_log_is_said(tmp_path: Path) -> None:
    assert list(RequestReader(tmp_path / "none.db").interactions()) == []
    (tmp_path / "notes.db").write_text("not a database, but long enough to be taken for one" * 40)
    with pytest.raises(UserError, match="cannot write the request log"):
        RequestLog(tmp_path / "notes.db")
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(UserError, match="newer tunesmith"):
        RequestLog(tmp_path / "newer.db")
