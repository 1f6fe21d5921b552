"""Tasks in the shape of Label Studio's own documentation of its JSON export."""

from __future__ import annotations

import orjson
import pytest

from tunesmith.data.annotations import Annotations, Kind, decide
from tunesmith.data.label_studio import from_label_studio, to_label_studio
from tunesmith.data.read import content_digest
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Message, Record, Role, Source


def text(said: str) -> Record:
    return Record(id=content_digest(said), source=Source(path="a.jsonl", line=3), text=said)


def chat(question: str, answer: str, rejected: str | None = None) -> Record:
    messages = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    other = (Message(role=Role.ASSISTANT, content=rejected),) if rejected else ()
    return Record(
        id=content_digest(messages, rejected=other), source=Source(path="b.jsonl", line=7), messages=messages, rejected=other
    )


ROWS = [text("We open at nine."), chat("Open?", "Yes."), chat("Open?", "Yes.", "No.")]


def decisions():
    return [
        decide(ROWS[0], by="anna", kind=Kind.LABEL, value="good"),
        decide(ROWS[0], by="ben", kind=Kind.SKIP, value=""),
        decide(ROWS[1], by="anna", kind=Kind.LABEL, value="bad"),
        decide(ROWS[1], by="anna", kind=Kind.ANSWER, value="Yes, until six."),
        decide(ROWS[2], by="anna", kind=Kind.RANK, value="rejected"),
        decide(ROWS[2], by="ben", kind=Kind.RANK, value="neither"),
    ]


def exported():
    found = Annotations()
    for decision in decisions():
        found.add(decision)
    return orjson.loads(orjson.dumps(to_label_studio(ROWS, found)))


@pytest.mark.parametrize("has_ids", [True, False])
def test_what_goes_out_comes_back(has_ids):
    tasks = exported()
    if not has_ids:
        for task in tasks:
            del task["data"]["row"]
    found = list(from_label_studio(tasks, {row.id: row for row in ROWS}, name="ls.json"))
    assert {(a.by, a.kind, a.of, a.value) for a in found} == {(a.by, a.kind, a.of, a.value) for a in decisions()}


def test_without_the_rows_the_tasks_are_rows_themselves():
    found = list(from_label_studio(exported(), {}, name="ls.json"))
    assert {(a.by, a.kind, a.value) for a in found} == {(a.by, a.kind, a.value) for a in decisions()}


def test_an_export_of_label_studio_itself_is_understood():
    task = {
        "id": 42,
        "data": {"text": "Opossums are great"},
        "annotations": [
            {
                "id": 1,
                "completed_by": {"id": 5, "email": "anna@example.org", "first_name": "Anna"},
                "created_at": "2026-03-09T22:16:08.728353Z",
                "was_cancelled": False,
                "lead_time": 4.3,
                "result": [
                    {
                        "id": "x",
                        "from_name": "sentiment",
                        "to_name": "text",
                        "type": "choices",
                        "value": {"choices": ["Positive"]},
                    }
                ],
            },
            {"id": 2, "completed_by": 9, "result": [{"type": "rating", "value": {"rating": 4}}]},
        ],
        "predictions": [],
    }
    first, second = from_label_studio([task], {}, name="ls.json")
    assert (first.by, first.kind, first.value, first.at) == (
        "anna@example.org",
        "label",
        "Positive",
        "2026-03-09T22:16:08.728+00:00",
    )
    assert (second.by, second.value) == ("9", "4")
    assert first.record is not None
    assert first.record.text == "Opossums are great"
    assert first.record.parents == (text("Opossums are great").id,)


def test_a_dialogue_and_a_pair_of_texts_become_conversations():
    result = [{"type": "pairwise", "value": {"selected": "right"}}]
    tasks = [
        {
            "data": {"prompt": "Open?", "answer1": "No.", "answer2": "Yes."},
            "annotations": [{"completed_by": 1, "result": result}],
        },
        {
            "data": {"dialogue": [{"author": "user", "text": "Open?"}, {"author": "assistant", "text": "Yes."}]},
            "annotations": [{"completed_by": 1, "result": [{"type": "textarea", "value": {"text": ["Until six."]}}]}],
        },
    ]
    pair, corrected = from_label_studio(tasks, {}, name="ls.json")
    assert pair.record.messages[-1].content == "Yes."
    assert pair.record.rejected[0].content == "No."
    assert corrected.record.messages[-1].content == "Until six."


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (None, "malformed_task"),
        ({}, "malformed_task"),
        ({"data": {"image": "x.png"}, "annotations": []}, "malformed_task"),
        ({"data": {"text": "a"}, "annotations": {}}, "malformed_task"),
        ({"data": {"text": "a"}, "annotations": [3]}, "malformed_task"),
        ({"data": {"text": "a"}, "annotations": [{"result": [{"type": "brushlabels", "value": {}}]}]}, "unknown_result"),
        (
            {"data": {"text": "a"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": ["a", "b"]}}]}]},
            "unknown_result",
        ),
        ({"data": {"text": "a"}, "annotations": [{"result": ["x"]}]}, "unknown_result"),
        ({"data": {"messages": [{"role": "Zorro", "content": "a"}]}, "annotations": []}, "malformed_task"),
    ],
)
def test_what_cannot_be_understood_is_named_by_its_task(task, reason):
    good = {"data": {"text": "b"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": ["x"]}}]}]}
    found = list(from_label_studio([good, task], {}, name="ls.json"))
    assert found[0].value == "x"
    assert found[0].by == "unknown"
    (bad,) = found[1:]
    assert isinstance(bad, Dropped)
    assert (str(bad.source), bad.reason) == ("ls.json:2", reason)


def test_what_is_no_list_is_refused():
    with pytest.raises(DataError, match="list of tasks"):
        list(from_label_studio({"data": {}}, {}, name="ls.json"))
