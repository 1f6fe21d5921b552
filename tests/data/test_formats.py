"""Every layout becomes a conversation, a pair, a labelled text or a text, whatever names its makers gave."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tunesmith.data import SourceConfig, read
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Record


def read_rows(folder: Path, *rows: object, **config: object) -> tuple[str, list[Record | Dropped]]:
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reading = read(SourceConfig(path="a.jsonl", **config), folder=folder)
    return reading.formats["a.jsonl"], list(reading.rows)


def said(row: Record | Dropped) -> str:
    assert isinstance(row, Record), row
    if row.text is not None:
        return row.text
    return " | ".join(f"{message.role[0]}:{message.content}" for message in row.messages)


def turns(*pairs: tuple[str, str], role: str = "role", content: str = "content") -> list[dict[str, str]]:
    return [{role: who, content: what} for who, what in pairs]


def shared(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return turns(*pairs, role="from", content="value")


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("row", "format_", "expected"),
    [
        ({"messages": turns(("developer", "s"), ("user", "q"), ("assistant", "a"))}, "messages", "s:s | u:q | a:a"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]}, "messages", "u:q | a:a"),
        ({"conversations": turns(("human", "q"), ("gpt", "a"), role="from", content="value")}, "sharegpt", "u:q | a:a"),
        (
            {"conversations": shared(("human", "q"), ("function_call", '{"name":"f"}'), ("observation", "o"), ("gpt", "a"))},
            "sharegpt",
            'u:q | a:<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call> | t:o | a:a',
        ),
        (
            {"system": "s", "conversations": shared(("human", "q"), ("gpt", "a"))},
            "sharegpt",
            "s:s | u:q | a:a",
        ),
        ({"turns": turns(("user", "q"), ("agent", "a"), ("user", "bye"), content="text")}, "dialogue", "u:q | a:a"),
        ({"turns": turns(("user", "q"), ("system", "a"), content="text")}, "dialogue", "u:q | a:a"),
        ({"turns": turns(("agent_1", "q"), ("agent_1", "r"), ("agent_2", "a"), content="text")}, "dialogue", "u:q\nr | a:a"),
        ({"dialog": [["Ann", "q"], ["Bob", "a"]]}, "dialogue", "u:q | a:a"),
        ({"instruction": "i", "input": "x", "output": "a", "history": [["q", "a"]]}, "alpaca", "u:q | a:a | u:i\n\nx | a:a"),
        ({"prompt": "q", "completion": "a"}, "prompt_completion", "u:q | a:a"),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt_completion", "u:q | a:a"),
        ({"prompt": [USER], "completion": "a"}, "prompt_completion", "u:q | a:a"),
        ({"src": "q", "tgt": "a"}, "prompt_completion", "u:q | a:a"),
        ({"system_prompt": "s", "question": "q", "response": "a"}, "prompt_completion", "s:s | u:q | a:a"),
        (
            {"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}},
            "prompt_completion",
            "u:c\n\nq | a:a",
        ),
        ({"instruction": "i", "context": "c", "response": "a"}, "prompt_completion", "u:i\n\nc | a:a"),
        ({"query": "q", "choices": ["no", "a"], "gold": 1}, "choices", "u:q | a:a"),
        ({"question": "q", "choices": ["no", "a"], "answer": "B"}, "choices", "u:q | a:a"),
        ({"utterance": "t"}, "text", "t"),
        ({"text": "t", "id": 3}, "text", "t"),
    ],
)
def test_layout_is_recognised_from_the_rows(row: dict[str, object], format_: str, expected: str, tmp_path: Path) -> None:
    told, (found,) = read_rows(tmp_path, row)
    assert told.startswith(f"{format_} (")
    assert told.endswith(" in 1 of 1 rows)")
    assert said(found) == expected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "b"}]},
        {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "b"}]},
        {"prompt": "q", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "b"}]},
        {"conversations": shared(("human", "q")), "chosen": shared(("gpt", "a"))[0], "rejected": shared(("gpt", "b"))[0]},
        {"instruction": "q", "input": "", "output": "a", "chosen": "a", "rejected": "b"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    ],
)
def test_pair_of_answers_shares_its_prompt(row: dict[str, object], tmp_path: Path) -> None:
    told, (found,) = read_rows(tmp_path, row)
    assert told.startswith("preference (")
    assert said(found) == "u:q | a:a"
    assert isinstance(found, Record)
    assert [(message.role.value, message.content) for message in found.rejected] == [("assistant", "b")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "equal_answers"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "equal_answers"),
        ({"chosen": "a", "rejected": "b"}, "missing_field"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "missing_field"),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "empty_content"),
    ],
)
def test_pair_from_which_nothing_can_be_learned_is_a_reason(row: dict[str, object], reason: str, tmp_path: Path) -> None:
    _, (found,) = read_rows(tmp_path, row)
    assert isinstance(found, Dropped)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"text": "t", "label": 1}, "1"),
        ({"text": "t", "label": True}, "true"),
        ({"utterance": "t", "intent": "i", "category": "c"}, "i"),
        ({"text": "t", "category": None}, None),
        ({"prompt": "q", "completion": "a", "label": False}, "false"),
        ({"messages": [USER, ANSWER], "label": "good"}, "good"),
    ],
)
def test_label_is_kept(row: dict[str, object], label: str | None, tmp_path: Path) -> None:
    _, (found,) = read_rows(tmp_path, row)
    assert isinstance(found, Record)
    assert found.label == label


def test_tools_and_calls_are_kept(tmp_path: Path) -> None:
    tools = [{"name": "open", "parameters": {}}]
    call = {"id": "1", "type": "function", "function": {"name": "open", "arguments": '{"day": "Sunday"}'}}
    row = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "no"}, ANSWER]
    for given in (tools, json.dumps(tools)):
        _, (found,) = read_rows(tmp_path, {"messages": row, "tools": given})
        assert isinstance(found, Record)
        assert json.loads(found.tools) == [{"type": "function", "function": tools[0]}]
        assert found.messages[1].content == '<tool_call>\n{"name": "open", "arguments": {"day": "Sunday"}}\n</tool_call>'
    _, bad = read_rows(tmp_path, {"messages": row}, {"messages": row, "tools": "[nope"})
    assert isinstance(bad[1], Dropped)
    assert bad[1].reason == "malformed_tools"


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
        {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
        {"from": "function_call", "value": '[{"name": "f", "arguments": "{\\"a\\": 1}"}]'},
        {"from": "function_call", "value": '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'},
        {"from": "gpt", "value": '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'},
    ],
)
def test_a_call_is_one_text_however_it_is_spelt(turn: dict[str, object], tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": "q"}, turn]}, {"messages": [USER, turn]}]
    _, (found,) = read_rows(tmp_path, rows["role" in turn])
    assert said(found) == 'u:q | a:<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def test_one_key_twice_with_one_value_and_blanks_for_no_arguments_are_understood(tmp_path: Path) -> None:
    calls = [{"function": {"name": "f", "arguments": text}} for text in ('{"a": 1, "a": 1}', "  ", "")]
    _, (found,) = read_rows(tmp_path, {"messages": [USER, {"role": "assistant", "tool_calls": calls}]})
    assert [line for line in said(found).splitlines() if "name" in line] == [
        '{"name": "f", "arguments": {"a": 1}}',
        *['{"name": "f", "arguments": {}}'] * 2,
    ]


def test_what_a_table_holds_and_json_cannot_say_is_no_argument(tmp_path: Path) -> None:
    table = tmp_path / "calls.parquet"
    for value in (float("nan"), float("inf"), b"\xff"):
        calls = [{"function": {"name": "f", "arguments": {"day": value}}}]
        row = {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": calls}]}
        parquet.write_table(pa.Table.from_pylist([row]), table)
        (found,) = read(SourceConfig(path=str(table)), folder=tmp_path).rows
        assert (found.reason, found.source.line) == ("malformed_arguments", 1), value


def test_words_stand_before_the_calls_of_their_turn(tmp_path: Path) -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in "fg"]
    _, (found,) = read_rows(tmp_path, {"messages": [USER, {"role": "assistant", "content": "One moment.", "tool_calls": calls}]})
    f, g = (f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>' for name in "fg")
    assert said(found) == f"u:q | a:One moment.\n{f}\n{g}"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"from": "function_call", "value": "f(1)"}, "malformed_call"),
        ({"from": "function_call", "value": "{}"}, "wrong_type"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "not_text"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            "malformed_arguments",
        ),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "wrong_type"),
        *(
            ({"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": text}}]}, reason)
            for reason in ["malformed_arguments"]
            for text in ('{"day": 1, "day": 2}', '{"in": {"a": NaN}}', '{"a": -Infinity}', '{"a": 1e999}', "[" * 100_000)
        ),
        ({"from": "function_call", "value": '{"name": "f", "name": "g", "arguments": {}}'}, "malformed_call"),
        ({"from": "function_call", "value": '{"name": "f", "arguments": {"a": NaN}}'}, "malformed_call"),
    ],
)
def test_turn_that_is_no_text_is_a_reason(turn: dict[str, object], reason: str, tmp_path: Path) -> None:
    _, (_, found) = read_rows(tmp_path, {"messages": [USER, ANSWER]}, {"messages": [turn, ANSWER]})
    assert isinstance(found, Dropped)
    assert found.reason == reason


def test_weights_are_kept_and_train_says_the_same(tmp_path: Path) -> None:
    weighed = [USER, ANSWER | {"weight": 0}, USER, ANSWER | {"train": True}, USER | {"train": False}, ANSWER]
    _, (found,) = read_rows(tmp_path, {"messages": weighed})
    assert isinstance(found, Record)
    assert [message.weight for message in found.messages] == [1, 0, 1, 1, 0, 1]


def test_constant_context_is_a_label_and_not_what_is_asked_about(tmp_path: Path) -> None:
    rows = [{"context": "support", "instruction": f"q{i}", "response": "a"} for i in range(3)]
    assert said(read_rows(tmp_path, *rows)[1][0]) == "u:q0 | a:a"
    rows[1]["context"] = "other"
    assert said(read_rows(tmp_path, *rows)[1][0]) == "u:q0\n\nsupport | a:a"


def test_mapping_says_which_key_is_which_and_reads_no_other(tmp_path: Path) -> None:
    rows = {"en": "q", "De": "a", "text": "no", "domain": "d"}, {"en": "q"}
    told, (found, bad) = read_rows(tmp_path, *rows, map={"question": "en", "answer": "De"})
    assert told == "prompt_completion (question/answer in 1 of 2 rows)"
    assert said(found) == "u:q | a:a"
    assert isinstance(found, Record)
    assert found.domain == "d"
    assert isinstance(bad, Dropped)
    assert bad.reason == "missing_field"
    with pytest.raises(ValueError, match="`frage` is not a name"):
        SourceConfig(path="a", map={"frage": "en"})


def test_roles_may_be_named(tmp_path: Path) -> None:
    row = {"messages": turns(("user", "q"), ("Bot", "a"))}
    _, (bad,) = read_rows(tmp_path, row)
    assert isinstance(bad, Dropped)
    assert "roles: {Bot: assistant}" in bad.detail
    assert said(read_rows(tmp_path, row, roles={"Bot": "assistant"})[1][0]) == "u:q | a:a"


def suggestion(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read(SourceConfig(path=path.name), folder=path.parent)
    return str(error.value).partition("Say which keys are which")[2]


def test_a_mapping_is_suggested_in_the_order_of_the_columns_and_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Frage;Antwort\nWie?;So\n")
    assert "map: {question: frage, answer: antwort}" in suggestion(path)
    path.write_text("Nummer;Frage;Antwort\n1;Wie?;So\n")
    assert "map: {question: KEY, answer: KEY}" in suggestion(path)
    path.write_text("Frage\nWie?\n")
    assert suggestion(path) == ""


def test_a_key_that_a_mapping_names_and_the_file_has_not_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Frage;Antwort\nWie?;So\n")
    for names, told in (
        ({"question": "Frag", "answer": "Antwort"}, "`Frag` is no key of the file; it has frage, antwort"),
        ({"question": "Frag", "answer": "Answer"}, "`Frag`, `Answer` are no keys of the file; it has frage, antwort"),
    ):
        with pytest.raises(DataError) as error:
            read(SourceConfig(path="a.csv", map=names), folder=tmp_path)
        assert str(error.value).endswith(told)
    names = {"question": "Frage", "answer": "Antwort", "system": "Rolle"}
    reading = read(SourceConfig(path="a.csv", map=names), folder=tmp_path)
    assert reading.formats["a.csv"].endswith("; `Rolle` is no key of the file; it has frage, antwort")
    reading = read(SourceConfig(path="a.csv", map={"question": " FRAGE ", "answer": "antwort"}), folder=tmp_path)
    assert "no key" not in reading.formats["a.csv"]


def test_unknown_layout_says_how_to_map_its_keys(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Keys found: en, de\..*map: \{question: en, answer: de\}, or --map"):
        read_rows(tmp_path, {"en": "q", "de": "a"})


def test_what_stands_beside_the_content_and_cannot_be_used_is_told(tmp_path: Path) -> None:
    asked = {"question": "Open?", "answer": "Yes."}
    beside = [{"label": ["a"], "domain": 5, "tags": "abc"}, {"label": {"a": 1}, "licence": ["MIT"], "group": [1]}, {"label": "a"}]
    told, found = read_rows(tmp_path, *(asked | each for each in beside))
    expected = [("label", "a list", 2), ("licence", "a list", 1), ("group", "a list", 1), ("tags", "text", 1)]
    assert told.split("; ")[1:] == [f"`{key}` is {kind} in {num} of 3 rows and is left out" for key, kind, num in expected]
    records = [row for row in found if isinstance(row, Record)]
    assert [(row.label, row.domain, row.group) for row in records] == [(None, "5", None), (None, "", None), ("a", "", None)]


@pytest.mark.parametrize(
    "row",
    [
        {"system": "s", "messages": [{"role": "system", "content": "t"}, USER, ANSWER]},
        {"system": "s", "conversations": shared(("system", "t"), ("human", "q"), ("gpt", "a"))},
        {"system": "s", "system_prompt": "t", "question": "q", "answer": "a"},
        {"System": "s", "turns": turns(("system", "t"), ("user", "q"), ("assistant", "a"), content="text")},
        {"system": "s", "prompt": [{"role": "system", "content": "t"}, USER], "chosen": "a", "rejected": "b"},
    ],
)
def test_a_row_with_two_system_prompts_is_left_out_with_both_named(tmp_path: Path, row: dict[str, object]) -> None:
    _, (found,) = read_rows(tmp_path, row)
    assert isinstance(found, Dropped), found
    assert found.reason == "two_system_prompts"
    assert "(s / t)" in found.detail


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"system": "s", "messages": [{"role": "system", "content": "s "}, USER, ANSWER]}, "s:s  | u:q | a:a"),
        ({"system": "s", "system_prompt": "s", "question": "q", "answer": "a"}, "s:s | u:q | a:a"),
        ({"system": "s", "messages": [{"role": "system", "content": ""}, USER, ANSWER]}, "s:s | u:q | a:a"),
        ({"system": "s", "prompt": [USER], "completion": [ANSWER]}, "s:s | u:q | a:a"),
    ],
)
def test_one_system_prompt_is_kept_wherever_it_stands(tmp_path: Path, row: dict[str, object], expected: str) -> None:
    _, (found,) = read_rows(tmp_path, row)
    assert said(found) == expected


def test_a_system_prompt_that_is_no_text_is_told(tmp_path: Path) -> None:
    format_, _ = read_rows(tmp_path, {"system": ["s"], "messages": [USER, ANSWER]})
    assert "`system` is a list in 1 of 1 rows and is left out" in format_


def test_messages_that_are_null_are_called_null(tmp_path: Path) -> None:
    _, (_, bad) = read_rows(tmp_path, {"messages": [USER, ANSWER]}, {"messages": None})
    assert isinstance(bad, Dropped)
    assert (bad.reason, bad.detail) == ("missing_field", "`messages` is null")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('{"text": "t", "label": 1.50}\n{"text": "u", "label": 1e3}\n{"text": "v", "label": 7}', ["1.50", "1e3", "7"]),
        ('[{"text": "t", "label": 1.50}, {"text": "u", "label": -0.0}]', ["1.50", "-0.0"]),
        ('{"data": [{"text": "t", "label": 1.50}, {"text": "u", "label": 2}]}', ["1.50", "2"]),
        ('{"text": ["t", "u"], "label": [1.50, 2.10]}', ["1.50", "2.10"]),
    ],
)
def test_a_number_as_a_label_is_spelled_as_in_its_file(tmp_path: Path, text: str, labels: list[str]) -> None:
    (tmp_path / "a.json").write_text(text)
    rows = list(read(SourceConfig(path="a.json"), folder=tmp_path).rows)
    assert [row.label for row in rows if isinstance(row, Record)] == labels


def test_a_number_with_a_leading_zero_is_told_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "t", "label": 7}\n{"text": "u", "label": 007}\n')
    _, bad = read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows
    assert isinstance(bad, Dropped)
    assert "a number begins with 0 and has more digits (quote it where it is a label" in bad.detail
