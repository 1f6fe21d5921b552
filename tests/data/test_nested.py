"""Rows that hold several give one record for each, of one group, and a reason for each that is broken."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.test_formats import read_rows, said

from tunesmith.data import DataConfig, SourceConfig, freeze, read
from tunesmith.data.collect import collect
from tunesmith.data.config import SplitConfig
from tunesmith.data.split import split
from tunesmith.errors import DataError
from tunesmith.pipeline.preparation import _lines
from tunesmith.records import Dropped, Record
from tunesmith.store.workspace import Store


def message(role: str, text: str, *replies: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), **more}


def ask(text: str, *replies: dict[str, Any], **more: object) -> dict[str, Any]:
    return message("prompter", text, *replies, **more)


def answer(text: str, *replies: dict[str, Any], **more: object) -> dict[str, Any]:
    return message("assistant", text, *replies, **more)


def records(rows: list[Record | Dropped]) -> list[Record]:
    return [row for row in rows if isinstance(row, Record)]


def reasons(rows: list[Record | Dropped]) -> list[tuple[str, str]]:
    return [(row.reason, row.detail.partition(":")[0]) for row in rows if isinstance(row, Dropped)]


TREE = ask("q", answer("a", ask("r", answer("b"), answer("c")), ask("s", answer("d"), ask("bye")), ask("thanks")))


@pytest.mark.parametrize("row", [{"prompt": TREE, "message_tree_id": "1"}, TREE])
def test_tree_gives_a_conversation_for_each_last_answer(row: dict[str, Any], tmp_path: Path) -> None:
    told, found = read_rows(tmp_path, row)
    assert told == "tree (messages with replies, of ranked answers the best, in 1 of 1 rows)"
    assert [said(one) for one in found] == ["u:q | a:a | u:r | a:b", "u:q | a:a | u:r | a:c", "u:q | a:a | u:s | a:d"]
    assert {str(row.source) for row in found} == {"a.jsonl:1"}


def test_each_answer_of_a_tree_is_learned_once(tmp_path: Path) -> None:
    _, found = read_rows(tmp_path, {"prompt": TREE})
    learned = [one.content for row in records(found) for one in row.messages if one.role == "assistant" and one.weight]
    assert learned == ["a", "b", "c", "d"]


def test_of_ranked_answers_the_best_is_taken_and_the_others_are_kept_with_the_reason(tmp_path: Path) -> None:
    replies = [
        answer("worse", ask("x", answer("y")), rank=1),
        answer("none"),
        answer("best", ask("r"), ask("s", answer("t")), rank=0),
    ]
    _, found = read_rows(tmp_path, {"prompt": ask("q", *replies)})
    assert [said(row) for row in records(found)] == ["u:q | a:best | u:s | a:t"]
    assert reasons(found) == [("lower_ranked", "prompt.replies[0]"), ("lower_ranked", "prompt.replies[1]")]
    assert "rank 1, beside which that of rank 0 is taken" in next(row.detail for row in found if isinstance(row, Dropped))


def test_lower_ranked_answers_are_no_fault_to_the_gate_and_stand_in_the_snapshot(tmp_path: Path) -> None:
    trees = [{"prompt": ask(f"question {i}", answer(f"a{i}", rank=0), answer("b", rank=1))} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, trees)))
    store = Store(tmp_path / "store")
    snapshot = freeze(DataConfig(sources=(SourceConfig(path="a.jsonl"),), max_bad_share=0), folder=tmp_path, store=store)
    assert (snapshot.num_bad, dict(snapshot.dropped), sum(snapshot.splits.values())) == (0, {"lower_ranked": 20}, 20)
    assert "20 kept · 0 quarantined · 0 duplicates removed · 20 lower-ranked answers left out" in "\n".join(_lines(snapshot))
    told = collect([SourceConfig(path=str(tmp_path / "a.jsonl"))], out=tmp_path / "out.jsonl")
    assert (told.dropped, told.examples) == ({"lower_ranked": 20}, ())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (answer("x", deleted=True), "deleted"),
        (answer(" "), "empty_content"),
        (message("Bot", "x"), "unknown_role"),
        ({"role": "assistant", "replies": []}, "missing_field"),
        (answer("x") | {"replies": 3}, "wrong_type"),
        (7, "wrong_type"),
    ],
)
def test_broken_message_of_a_tree_is_a_reason_and_the_rest_is_read(bad: Any, reason: str, tmp_path: Path) -> None:
    _, found = read_rows(tmp_path, {"prompt": ask("q", bad, answer("a", ask("r", bad)))})
    assert [said(row) for row in records(found)] == ["u:q | a:a"]
    assert reasons(found) == [(reason, "prompt.replies[0]"), (reason, "prompt.replies[1].replies[0].replies[0]")]


def test_tree_without_an_answer_is_a_reason(tmp_path: Path) -> None:
    _, found = read_rows(tmp_path, {"prompt": TREE}, {"prompt": ask("q")}, {"prompt": "q"})
    assert [reason for reason, _ in reasons(found)] == ["no_assistant_turn", "missing_field"]


def test_speakers_of_a_tree_may_be_named(tmp_path: Path) -> None:
    row = {"prompt": message("Guest", "q", message("Host", "a"))}
    _, found = read_rows(tmp_path, row, roles={"Guest": "user", "Host": "assistant"})
    assert [said(one) for one in found] == ["u:q | a:a"]


def test_deep_tree_is_read(tmp_path: Path) -> None:
    node = answer("a0")
    for i in range(1, 400):
        node = (ask if i % 2 else answer)(f"m{i}", node)
    _, found = read_rows(tmp_path, {"prompt": node})
    (row,) = records(found)
    assert len(row.messages) == 400


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"instruction": "i", "instances": [{"input": "", "output": "a"}, {"input": "x", "output": "b"}]},
            ["u:i | a:a", "u:i\n\nx | a:b"],
        ),
        ({"Definition": ["i", "j"], "Instances": [{"Input": "x", "Output": ["a", "b"]}]}, ["u:i\nj\n\nx | a:a"]),
    ],
)
def test_task_gives_a_row_for_each_instance(row: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    told, found = read_rows(tmp_path, row)
    assert told == "instances (instruction and instances in 1 of 1 rows)"
    assert [said(one) for one in found] == expected


def test_broken_instance_is_a_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    instances = [{"input": "x", "output": "a"}, {"input": "x"}, 3, {"input": "x", "output": ""}, {"input": "y", "output": "b"}]
    _, found = read_rows(
        tmp_path, {"instruction": "i", "instances": instances}, {"instruction": "i", "instances": []}, {"instances": []}
    )
    assert [said(row) for row in records(found)] == ["u:i\n\nx | a:a", "u:i\n\ny | a:b"]
    assert reasons(found) == [
        ("missing_field", "instances[1]"),
        ("wrong_type", "instances[2]"),
        ("empty_content", "instances[3]"),
        ("empty_content", "`instances` is an empty list"),
        ("missing_field", "no instruction and list of `instances` are here; the row has `instances`"),
    ]


QAS = [
    {"id": "1", "question": "q", "answers": [{"text": "a", "answer_start": 0}, {"text": "no"}]},
    {"question": "r", "answers": ["b"]},
]


@pytest.mark.parametrize(
    "row",
    [
        {"document": "d", "questions": QAS},
        {"context": "d", "qas": QAS},
        {"text": "d", "title": "t", "first": [{"query": "q", "response": "a"}], "second": [{"query": "r", "answer": "b"}]},
        {"title": "t", "paragraphs": [{"context": "d", "qas": QAS[:1]}, {"context": "d", "qas": QAS[1:]}]},
        {"story": ["d"], "questions": QAS},
    ],
)
def test_document_gives_a_row_for_each_question(row: dict[str, Any], tmp_path: Path) -> None:
    told, found = read_rows(tmp_path, row)
    assert told == "questions (a document and its questions in 1 of 1 rows)"
    assert [said(one) for one in found] == ["u:d\n\nq | a:a", "u:d\n\nr | a:b"]
    assert len({one.group for one in records(found)}) == 1


def test_document_may_be_what_people_said(tmp_path: Path) -> None:
    transcript = [{"speaker": "Ann", "text": "hello"}, {"speaker": "Bob", "text": "yes"}, {"speaker": "Cy", "text": "no"}]
    _, (found,) = read_rows(tmp_path, {"transcript": transcript, "general": [{"query": "q", "answer": "a"}]})
    assert said(found) == "u:Ann: hello\nBob: yes\nCy: no\n\nq | a:a"


def test_list_of_questions_needs_no_document(tmp_path: Path) -> None:
    row = {"title": "t", "faqs": [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]}
    told, found = read_rows(tmp_path, row, {"title": "u", "faqs": [{"question": "s", "answer": "c"}]})
    assert told == "questions (a list of questions in 2 of 2 rows)"
    assert [said(one) for one in found] == ["u:q | a:a", "u:r | a:b", "u:s | a:c"]
    first, second, third = records(found)
    assert first.group == second.group != third.group


def test_document_under_an_unknown_name_is_never_left_out_in_silence(tmp_path: Path) -> None:
    row = {"doc": "d" * 201, "qs": QAS}
    with pytest.raises(DataError, match="Keys found: doc, qs"):
        read_rows(tmp_path, row)
    _, found = read_rows(tmp_path, row, map={"context": "doc", "questions": "qs"})
    assert said(found[0]) == f"u:{'d' * 201}\n\nq | a:a"
    _, found = read_rows(tmp_path, {"doc": "title", "qs": QAS}, row)
    assert len(records(found)) == 2
    assert reasons(found)[0][0] == "missing_field"


def test_broken_question_is_a_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    questions = [{"question": "q", "answers": []}, {"question": "q"}, "q", {"question": "r", "answer": "b"}]
    good = {"document": "d", "questions": questions}
    lost = {"document": "d", "questions": "none"}
    told, found = read_rows(tmp_path, good, {"questions": questions}, {"document": 3, "questions": questions}, lost)
    assert told == "questions (a document and its questions in 2 of 4 rows)"
    assert [said(row) for row in records(found)] == ["u:d\n\nr | a:b"]
    assert [reason for reason, _ in reasons(found)] == [
        *("empty_content", "missing_field", "wrong_type"),
        *("missing_field", "wrong_type", "missing_field"),
    ]
    _, found = read_rows(tmp_path, {"paragraphs": [{"context": "c", "qas": QAS}, 4, {"context": " ", "qas": QAS}]})
    assert reasons(found)[1:] == [("empty_content", "paragraphs[2]")]
    assert reasons(found)[0][1] == "paragraphs[1]"
    assert len(records(found)) == 2


def test_squad_file_gives_a_row_for_each_question_of_its_articles(tmp_path: Path) -> None:
    paragraphs = [{"context": "c", "qas": QAS}, {"context": "d", "qas": QAS}]
    (tmp_path / "a.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}] * 2}))
    found = list(read(SourceConfig(path="a.json"), folder=tmp_path).rows)
    assert [said(row) for row in found] == ["u:c\n\nq | a:a", "u:c\n\nr | a:b", "u:d\n\nq | a:a", "u:d\n\nr | a:b"] * 2
    assert len({row.group for row in records(found)}) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TREE},
        {"instruction": "i", "instances": [{"input": str(i), "output": f"a{i}"} for i in range(4)]},
        {"document": "d", "questions": [{"question": f"q{i}", "answer": "a"} for i in range(4)]},
    ],
)
def test_no_row_is_parted_by_a_split(row: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        json.loads(json.dumps(row).replace('"q"', f'"q{i}"').replace('"i"', f'"i{i}"').replace('"d"', f'"d{i}"'))
        for i in range(30)
    ]
    _, found = read_rows(tmp_path, *rows)
    config = SplitConfig(validation=0.2, test=0.2, near_duplicates=None)
    parts = split(records(found), config=config, seed=0).parts
    lines = [{row.source.line for row in part} for part in parts.values()]
    assert all(lines)
    assert sum(map(len, lines)) == 30


def test_own_group_and_labels_go_with_each_item(tmp_path: Path) -> None:
    row = {"document": "d", "group": "g", "domain": "law", "licence": "CC", "tags": {"a": "b"}, "topic": "t", "questions": QAS}
    _, found = read_rows(tmp_path, row)
    assert {(one.group, one.domain, one.licence, one.tags["a"]) for one in records(found)} == {("g", "law", "CC", "b")}
    _, found = read_rows(tmp_path, row, group_by="topic")
    assert {one.group for one in records(found)} == {"t"}


def test_equal_documents_are_one_group_wherever_they_stand(tmp_path: Path) -> None:
    _, found = read_rows(
        tmp_path, *({"document": text, "questions": QAS[i : i + 1]} for text, i in (("d", 0), ("e", 0), ("d", 1)))
    )
    first, second, third = records(found)
    assert first.group == third.group != second.group


def test_half_characters_are_a_reason(tmp_path: Path) -> None:
    _, found = read_rows(
        tmp_path, {"document": "\ud83d", "questions": QAS}, {"prompt": ask("\ud83d", answer("a"))}, format="questions"
    )
    assert [reason for reason, _ in reasons(found)] == ["encoding", "encoding", "missing_field"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"id": 1, "original": [["agent", "hi"], ["customer", "q"], ["action", "found"], ["agent", "a"]]},
            "a:hi | u:q | t:found | a:a",
        ),
        ({"log": [{"speaker": "user", "text": "q"}, {"speaker": "bot", "text": "x"}, {"speaker": "agent", "text": "a"}]}, None),
        ({"shown": "User: q\nand more\nAssistant: a\nb"}, "u:q\nand more | a:a\nb"),
        ({"shown": "user: q\nassistant: None\ntool: 3\nassistant: a\nNote: b\nuser: bye"}, "u:q | t:3 | a:a\nNote: b"),
        ({"shown": "user: q\nassistant: None"}, "u:q | a:None"),
    ],
)
def test_dialogue_is_found_under_any_name_if_its_speakers_are_known(
    row: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    told, (found,) = read_rows(tmp_path, row)
    assert told == "dialogue (known speakers and text, under a name of its own in 1 of 1 rows)"
    if expected is None:
        assert isinstance(found, Dropped)
        assert found.reason == "unknown_role"
    else:
        assert said(found) == expected


@pytest.mark.parametrize(
    "row",
    [
        {"entities": [["PER", "Ann"], ["LOC", "Ulm"]]},
        {"log": [{"speaker": "Ann", "text": "x"}, {"speaker": "Bob", "text": "y"}]},
        {"note": "Note: user: this is no dialogue\nassistant: none"},
        {"note": "user: only one speaks"},
    ],
)
def test_what_may_be_something_else_is_not_taken_for_a_dialogue(row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in a known format"):
        read_rows(tmp_path, row)


def test_dialogue_under_another_name_never_outvotes_a_known_format(tmp_path: Path) -> None:
    log = [["user", "q"], ["assistant", "a"]]
    told, _ = read_rows(tmp_path, {"text": "t", "log": log}, {"log": log}, {"log": log})
    assert told == "text (text in 1 of 3 rows)"
