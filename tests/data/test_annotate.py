from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tunesmith.data.annotate import DEFAULT_LABELS, Desk, labels_of
from tunesmith.data.annotations import AnnotationLog, Kind, decide
from tunesmith.data.read import content_digest
from tunesmith.errors import DataError, NotFound
from tunesmith.records import Message, Record, Role, Source

TOPICS = ("opening hours on sunday", "returning a dress after weeks", "gift cards sent by post", "tailoring of a winter coat")


def text(said: str, *, line: int = 1, **more) -> Record:
    return Record(id=content_digest(said), source=Source(path="a.jsonl", line=line), text=said, **more)


def desk(path: Path, rows, **more) -> Desk:
    return Desk(rows, log=AnnotationLog(path / "out.jsonl"), **more)


def seen(found: Desk, by: str, num: int, *, label: str = "good") -> list[str]:
    shown = []
    for _ in range(num):
        task = found.next(by)
        if task is None:
            break
        shown.append(task["text"])
        found.decide(task["row"], by=by, kind=Kind.LABEL, value=label)
    return shown


def test_rows_unlike_those_judged_come_first(tmp_path):
    rows = [text(f"{topic} number{i}", line=i) for topic in TOPICS for i in range(5)]
    first = seen(desk(tmp_path, rows), "anna", 4)
    assert {topic for topic in TOPICS for said in first if said.startswith(topic)} == set(TOPICS)


def test_a_high_loss_comes_first_where_all_else_is_equal(tmp_path):
    rows = [text(f"word{i}", tags={"loss": loss} if loss else {}) for i, loss in enumerate(["0.2", "3.5", "", "nonsense", "nan"])]
    found = desk(tmp_path, rows)
    task = found.next("anna")
    assert task is not None
    assert (task["text"], task["why"]) == ("word1", "unlike what has been judged so far")


def test_rows_that_others_disagree_about_come_first_and_what_they_said_is_not_told(tmp_path):
    rows = [text(f"word{i}") for i in range(6)]
    found = desk(tmp_path, rows)
    for by, label in (("anna", "good"), ("ben", "bad")):
        found.decide(rows[4].id, by=by, kind=Kind.LABEL, value=label)
        found.decide(rows[2].id, by=by, kind=Kind.LABEL, value="good")
    task = found.next("carl")
    assert task is not None
    assert (task["text"], task["why"], task["mine"]) == ("word4", "others disagree about it", {})


def test_every_fifth_row_is_one_that_somebody_else_has_judged(tmp_path):
    rows = [text(f"word{i} thing{i}") for i in range(40)]
    found = desk(tmp_path, rows)
    anna = seen(found, "anna", 10)
    ben = seen(found, "ben", 10)
    assert [said in anna for said in ben] == [False] * 4 + [True] + [False] * 4 + [True]


def test_everybody_sees_every_row_once_and_then_none(tmp_path):
    rows = [text(f"word{i}") for i in range(7)]
    found = desk(tmp_path, rows)
    for by in ("anna", "ben"):
        assert sorted(seen(found, by, 100)) == [f"word{i}" for i in range(7)]
        assert found.next(by) is None
        assert found.progress(by).num_done == 7


def test_rows_left_for_later_come_again_after_all_others_and_never_twice_in_turn(tmp_path):
    found = desk(tmp_path, [text(f"word{i}") for i in range(4)])
    order: list[str] = []
    for _ in range(8):
        task = found.next("anna", passing=order)
        assert task is not None
        order.append(task["row"])
    assert len(set(order[:4])) == 4
    assert all(a != b for a, b in itertools.pairwise(order))


def test_a_row_whose_decision_was_taken_back_can_be_left_for_later_too(tmp_path):
    rows = [text(f"word{i}") for i in range(5)]
    found = desk(tmp_path, rows)
    first = found.next("anna")
    assert first is not None
    found.decide(first["row"], by="anna", kind=Kind.LABEL, value="good")
    found.undo("anna")
    order = [first["row"]]
    for _ in range(4):
        task = found.next("anna", passing=order)
        assert task is not None
        order.append(task["row"])
    assert sorted(order) == sorted(row.id for row in rows)


def test_a_decision_of_another_process_is_seen_at_once(tmp_path):
    rows = [text(f"word{i}") for i in range(2)]
    one, other = desk(tmp_path, rows), desk(tmp_path, rows)
    one.decide(rows[0].id, by="anna", kind=Kind.LABEL, value="good")
    task = other.next("anna")
    assert task is not None
    assert task["row"] == rows[1].id
    assert other.progress("anna").num_done == 1


def test_a_new_desk_goes_on_where_the_last_one_stopped(tmp_path):
    rows = [text(f"word{i}") for i in range(4)]
    before = seen(desk(tmp_path, rows), "anna", 3)
    assert {*before, *seen(desk(tmp_path, rows), "anna", 9)} == {row.text for row in rows}


def test_a_row_that_is_wholly_covered_is_still_shown(tmp_path):
    """Its likeness to an equal row rounds to just above 1."""
    rows = [text(" ".join(f"w{j}x{i % 3}" for j in range(7 + i % 3)) + "." * i) for i in range(30)]
    found = desk(tmp_path, rows)
    assert len(seen(found, "anna", 99)) == 30
    assert len(seen(found, "ben", 99)) == 30


def test_undo_takes_the_newest_decision_of_that_person_back(tmp_path):
    rows = [text(f"word{i}") for i in range(3)]
    found = desk(tmp_path, rows)
    found.decide(rows[0].id, by="anna", kind=Kind.LABEL, value="good")
    found.decide(rows[1].id, by="ben", kind=Kind.LABEL, value="bad")
    assert found.undo("anna") == rows[0].id
    assert found.undo("anna") is None
    assert found.progress("ben").num_done == 1
    assert found.show(rows[0].id, by="anna")["mine"] == {}


def test_a_pair_changes_sides_by_person_and_the_verdict_is_about_the_row(tmp_path):
    messages = (Message(role=Role.USER, content="Open?"), Message(role=Role.ASSISTANT, content="Yes."))
    rejected = (Message(role=Role.ASSISTANT, content="No."),)
    row = Record(
        id=content_digest(messages, rejected=rejected), source=Source(path="a", line=1), messages=messages, rejected=rejected
    )
    found = desk(tmp_path, [row])
    sides = set()
    for i in range(20):
        by = f"person{i}"
        task = found.next(by)
        assert task is not None
        assert [turn["content"] for turn in task["messages"]] == ["Open?"]
        yes = "left" if task["left"][0]["content"] == "Yes." else "right"
        sides.add(yes)
        decision = found.decide(row.id, by=by, kind=Kind.RANK, value=yes)
        assert decision.value == "chosen"
        assert found.show(row.id, by=by)["mine"] == {"rank": yes}
    assert sides == {"left", "right"}


def test_unknown_rows_labels_and_empty_desks_are_refused(tmp_path):
    found = desk(tmp_path, [text("word")])
    with pytest.raises(NotFound):
        found.decide("no", by="anna", kind=Kind.LABEL, value="good")
    with pytest.raises(DataError, match="none of the labels"):
        found.decide(text("word").id, by="anna", kind=Kind.LABEL, value="great")
    with pytest.raises(DataError, match="no row"):
        desk(tmp_path, [])


def test_decisions_about_rows_that_are_not_here_are_left_alone(tmp_path):
    AnnotationLog(tmp_path / "out.jsonl").append([decide(text("elsewhere"), by="anna", kind=Kind.LABEL, value="x")])
    found = desk(tmp_path, [text("word")])
    assert found.progress("anna").num_done == 0
    assert found.undo("anna") is None


def test_labels_are_those_wanted_else_those_of_the_rows_else_two():
    rows = [text("a", label="b"), text("b", label="a"), text("c")]
    assert labels_of(rows, wanted=(" x", "y ")) == ("x", "y")
    assert labels_of(rows) == ("a", "b")
    assert labels_of(rows[2:]) == DEFAULT_LABELS
    for wanted in (("a", "a"), ("",), tuple("abcdefghij")):
        with pytest.raises(DataError, match="1 to 9"):
            labels_of(rows, wanted=wanted)
