import json
import sys
from pathlib import Path

import pytest

from tunesmith.data.clean import STEPS, Cleaning, clean
from tunesmith.data.clean import __path__ as folder_of_steps
from tunesmith.data.clean.step import Noted, Step, each, texts_of, with_texts
from tunesmith.data.clean.undo import Change, plain_change, restored
from tunesmith.data.read import content_digest
from tunesmith.data.rows import record_of
from tunesmith.records import Dropped, Message, Record, Role, Source


def text(content: str, *, line: int = 1) -> Record:
    return Record(id=content_digest(content), source=Source(path="a.txt", line=line), text=content)


def chat(*contents: str) -> Record:
    messages = tuple(Message(role=Role.ASSISTANT if i % 2 else Role.USER, content=c, weight=0.5) for i, c in enumerate(contents))
    return Record(id=content_digest(messages), source=Source(path="a.jsonl", line=7), messages=messages, domain="d")


def test_the_first_of_equal_records_is_kept_and_the_other_names_it() -> None:
    rows = [text("one", line=1), text("two", line=2), text("one", line=3)]
    cleaned = clean(rows, steps=["exact_duplicates"])
    assert cleaned.kept == rows[:2]
    assert [(row.source.line, row.reason, row.detail) for row in cleaned.dropped] == [
        (3, "exact_duplicate", "the same as a.txt:1, which is kept")
    ]
    (account,) = cleaned.accounts
    assert (account.num_in, account.num_out, account.num_changed, account.dropped) == (3, 2, 0, {"exact_duplicate": 1})


def test_an_account_counts_every_row_and_keeps_five_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    def shout(record: Record) -> Record | Noted | Dropped:
        content = record.text or ""
        if content.startswith("bad"):
            return Dropped(source=record.source, reason="bad", detail="it is bad")
        if content.startswith("found"):
            return Noted(record, ("thing", "thing"), "two things")
        return with_texts(record, [content.upper()])

    def build(*_settings: object, folder: Path) -> Step:
        return each(shout)

    monkeypatch.setattr(sys.modules["tunesmith.data.clean"], "load_step", {"exact_duplicates": build}.get)
    changes: list[Change] = []
    cleaning = Cleaning(["exact_duplicates"], on_change=changes.append)
    early = Dropped(source=Source(path="a.txt", line=9), reason="malformed_json", detail="unreadable")
    rows = [text("bad row"), early, text("found it"), text("SAME"), *(text(f"row {i}") for i in range(6))]
    out = list(cleaning.rows(rows))
    (account,) = cleaning.accounts
    assert (account.num_in, account.num_out, account.num_changed) == (9, 8, 6)
    assert (account.dropped, account.found) == ({"bad": 1}, {"thing": 2})
    assert [(e.before, e.after, e.detail) for e in account.examples] == [
        ("bad row", None, "it is bad"),
        ("found it", "found it", "two things"),
        ("row 0", "ROW 0", ""),
        ("row 1", "ROW 1", ""),
        ("row 2", "ROW 2", ""),
    ]
    assert [row.reason for row in out if isinstance(row, Dropped)] == ["bad", "malformed_json"]
    assert [(change.before.text, change.after.text) for change in changes] == [(f"row {i}", f"ROW {i}") for i in range(6)]


def test_an_edited_conversation_keeps_everything_but_its_words() -> None:
    before = chat("hi", "there")
    assert with_texts(before, ["hi", "there"]) is before
    after = with_texts(before, ["hi", "you"])
    assert texts_of(after) == ["hi", "you"]
    assert after.id == content_digest(after.messages) != before.id
    assert (after.source, after.domain, after.messages[1].weight) == (before.source, "d", 0.5)


def test_every_module_of_a_step_is_in_the_table_and_builds() -> None:

    modules = {file.stem for file in Path(folder_of_steps[0]).glob("*.py") if "def build(" in file.read_text()}
    assert modules == set(STEPS)
    for name in STEPS:
        assert clean([], steps=[name]).kept == []


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'wash' is unknown\. Known: .*exact_duplicates"):
        clean([], steps=["wash"])  # type: ignore[list-item]


def test_a_cleaned_row_can_be_restored_through_several_steps() -> None:
    before = [chat("mail  ann@example.com", "ok "), chat("mail  bob@example.com", "fine")]
    changes: list[Change] = []
    after = list(Cleaning(["whitespace", "pii"], on_change=changes.append).rows(before))
    assert [texts_of(row)[0] for row in after if isinstance(row, Record)] == ["mail [EMAIL_1]"] * 2
    written = [json.loads(json.dumps(plain_change(change))) for change in changes]
    assert [restored(row, written) for row in after if isinstance(row, Record)] == before


def test_a_dropped_row_is_kept_whole() -> None:
    record = chat("\u200b", "a long answer")
    (row,) = clean([record], steps=["unicode"]).dropped
    assert (row.reason, row.source) == ("nothing_left", record.source)
    assert record_of(json.loads(row.raw)) == record
