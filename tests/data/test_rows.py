import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.rows import dropped_of, plain_dropped, plain_record, record_of, source_of
from tunesmith.records import Dropped, Message, Record, Role, Source

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
sources = st.builds(Source, path=texts.filter(bool), line=st.integers(1))
messages = st.lists(
    st.builds(Message, role=st.sampled_from(Role), content=texts, weight=st.floats(0, 9)), min_size=1, max_size=3
).map(tuple)
labels = {
    "domain": texts,
    "group": st.none() | texts.filter(bool),
    "licence": texts,
    "label": st.none() | texts.filter(bool),
    "tools": texts,
    "parents": st.lists(texts, max_size=2).map(tuple),
    "tags": st.dictionaries(texts, texts, max_size=2),
}
conversations = st.builds(Record, id=texts, source=sources, messages=messages, rejected=messages | st.just(()), **labels)
records = conversations | st.builds(Record, id=texts, source=sources, text=texts, **labels)
drops = st.builds(Dropped, source=sources, reason=texts, detail=texts, raw=texts)


@given(record=records)
def test_record_written_and_read_is_the_same(record: Record) -> None:
    assert record_of(json.loads(json.dumps(plain_record(record)))) == record


@given(row=drops)
def test_dropped_row_written_and_read_is_the_same(row: Dropped) -> None:
    assert dropped_of(json.loads(json.dumps(plain_dropped(row)))) == row


def test_row_shows_its_kind_its_place_and_only_labels_that_say_something() -> None:
    place = Source(path="a.jsonl", line=3)
    turns = (Message(role=Role.USER, content="q"), Message(role=Role.ASSISTANT, content="a", weight=0.5))
    assert plain_record(Record(id="x", source=place, messages=turns)) == {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0.5}],
        "source": "a.jsonl:3",
        "id": "x",
    }
    assert plain_record(Record(id="x", source=place, text="t", label="spam")) == {
        "text": "t",
        "label": "spam",
        "source": "a.jsonl:3",
        "id": "x",
    }


def test_rows_of_the_first_snapshots_are_still_read() -> None:
    old = {"id": "x", "path": "a.jsonl", "line": 3, "messages": [{"role": "assistant", "content": "a", "weight": 1.0}]}
    message = Message(role=Role.ASSISTANT, content="a")
    assert record_of(old) == Record(id="x", source=Source(path="a.jsonl", line=3), messages=(message,))
    assert dropped_of({"path": "a", "line": 1, "reason": "r", "detail": "d", "raw": ""}).source == Source(path="a", line=1)


@pytest.mark.parametrize("text", ["", "a.jsonl", ":3", "a:", "a:x", "a:-1", "a:٣"])
def test_source_without_a_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="file:line"):
        source_of(text)
