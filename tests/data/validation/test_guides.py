"""The two guides that people follow, their definitions written anew here, against what we find. All rows are our own."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.data.chat import ChatFormat
from tunesmith.data.validation import CODES, Finding, Rules, Severity, Validation, validate
from tunesmith.errors import DataError


def look(folder: Path, rows: Iterable[object], *, rules: Rules | None = None, chat: ChatFormat | None = None) -> Validation:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) and row[:1] == "{" else json.dumps(row)) + "\n" for row in rows))
    return validate([path], rules=rules or Rules(keeps_all=True), chat=chat)


def turn(role: object, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def chat_row(*turns: dict[str, object], **more: object) -> dict[str, object]:
    return {"messages": list(turns), **more}


QUESTION, ANSWER = turn("user", "Do you open on Sundays?"), turn("assistant", "Yes, from eleven to six.")


# ---- The cookbook's notebook --------------------------------------------------------------------------------------------------


def cookbook_counts(rows: list[Any]) -> Counter[str]:
    """The seven format errors as the notebook defines them."""
    counts: Counter[str] = Counter()
    for row in rows:
        if not isinstance(row, dict):
            counts["data_type"] += 1
        elif not row.get("messages"):
            counts["missing_messages_list"] += 1
        else:
            for message in row["messages"]:
                content = message.get("content")
                counts["message_missing_key"] += not {"role", "content"} <= message.keys()
                counts["message_unrecognized_key"] += bool(
                    message.keys() - {"role", "content", "name", "function_call", "weight"}
                )
                counts["unrecognized_role"] += message.get("role") not in ("system", "user", "assistant", "function")
                empty = not content and not message.get("function_call")
                counts["missing_content"] += empty or not isinstance(content, str)
            roles = [message.get("role") for message in row["messages"]]
            counts["example_missing_assistant_message"] += "assistant" not in roles
    return +counts


COOKBOOK = {
    "data_type",
    "missing_messages_list",
    "message_missing_key",
    "message_unrecognized_key",
    "unrecognized_role",
    "missing_content",
    "example_missing_assistant_message",
}


def ours(validation: Validation) -> Counter[str]:
    found = validation.counts[Severity.ERROR] + validation.counts[Severity.WARNING]
    return Counter({code: count for code, count in found.items() if code in COOKBOOK})


messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(
            ["system", "user", "assistant", "function", "bot", "Assistant", "narrator", "", None, 7, ["user"]]
        ),
        "content": st.sampled_from(["fine", "", None, 5, ["a"], [{"type": "text", "text": "part"}], {}, " "]),
        "name": st.just("Ann"),
        "weight": st.sampled_from([0, 1]),
        "mood": st.just("good"),
        "text": st.just("spare"),
    },
)
rows = st.one_of(
    st.sampled_from([1, "words", None, [1], [], True, {}, {"prompt": "x"}, {"messages": []}, {"messages": None}]),
    st.fixed_dictionaries({"messages": st.lists(messages, max_size=5)}, optional={"id": st.integers(0, 9)}),
)


@given(st.lists(rows, min_size=1, max_size=12))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_format_errors_are_counted_as_the_cookbook_counts_them(tmp_path: Path, dataset: list[Any]) -> None:
    try:
        found = look(tmp_path, dataset, rules=Rules(layout="messages", guide="openai"))
    except DataError as error:
        pytest.fail(str(error))
    assert ours(found) == cookbook_counts(dataset)
    assert not [code for code in ours(found) if CODES[code].severity == "warning" and found.counts[Severity.WARNING][code]]


def test_what_the_notebook_did_not_know_yet_is_let_pass(tmp_path: Path) -> None:
    call = {"id": "abcdefgh1", "type": "function", "function": {"name": "hours", "arguments": "{}"}}
    asking = turn("assistant", None, tool_calls=[call])
    row = chat_row(QUESTION, asking, turn("tool", "11 to 6", tool_call_id="abcdefgh1"), ANSWER)
    assert cookbook_counts([row]) == {"message_unrecognized_key": 2, "unrecognized_role": 1, "missing_content": 1}
    assert ours(look(tmp_path, [row])) == {}


def test_the_toy_figures(tmp_path: Path, tokenizer_folder: Path) -> None:
    """Five conversations of 3, 2, 9, 3 and 2 messages, of which one lacks a system prompt, one a user, and one is too long."""
    system = turn("system", "You work in a shop.")
    dataset = [
        chat_row(system, QUESTION, ANSWER),
        chat_row(QUESTION, ANSWER),
        chat_row(system, *[QUESTION, ANSWER] * 4),
        chat_row(system, QUESTION, turn("assistant", "We do. " * 4000)),
        chat_row(system, ANSWER),
    ]
    found = look(tmp_path, dataset, chat=ChatFormat.load(tokenizer_folder)).as_json()
    assert (found["num_missing_system"], found["num_missing_user"], found["num_over_token_limit"]) == (1, 1, 1)
    lengths = found["lengths"]["messages_per_row"]
    counts = [len(row["messages"]) for row in dataset]
    assert (lengths["min"], lengths["max"], lengths["mean"], lengths["median"]) == (2, 9, 3.8, 3.0)
    # The notebook prints these two under "p5 / p95".
    assert (lengths["p10"], lengths["p90"]) == (2.0, 6.6000000000000005)
    assert (lengths["p5"], lengths["p95"]) == pytest.approx((np.quantile(counts, 0.05), np.quantile(counts, 0.95)))
    assert (lengths["p5"], lengths["p95"]) == pytest.approx((2.0, 7.8))
    assert found["passes"]


def test_percentiles_are_those_of_numpy(tmp_path: Path) -> None:
    dataset = [chat_row(QUESTION, turn("assistant", "w" * (1 + i * i % 97) + ".")) for i in range(230)]
    lengths = look(tmp_path, dataset).as_json()["roles"]["assistant"]["characters"]
    expected = [len(row["messages"][1]["content"]) for row in dataset]  # type: ignore[index]
    for percent, key in ((5, "p5"), (10, "p10"), (50, "median"), (90, "p90"), (95, "p95")):
        assert lengths[key] == pytest.approx(np.quantile(expected, percent / 100))
    assert (lengths["count"], lengths["mean"]) == (230, pytest.approx(np.mean(expected)))


# ---- mistral-finetune's validator ---------------------------------------------------------------------------------------------


def call(**changes: object) -> dict[str, object]:
    function = {"name": "hours", "arguments": '{"day": "Sunday"}'} | changes.pop("function", {})  # type: ignore[operator]
    whole: dict[str, object] = {"id": "abcdefgh1", "function": function} | changes
    return {key: value for key, value in whole.items() if value is not ...}


def calling(*calls: object, content: object = ...) -> dict[str, object]:
    return {key: value for key, value in turn("assistant", content, tool_calls=list(calls)).items() if value is not ...}


def tool(**changes: object) -> dict[str, object]:
    function = {"name": "hours", "description": "When the shop is open.", "parameters": {}} | changes
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not ...}}


RESULT = turn("tool", "11 to 6", tool_call_id="abcdefgh1")

# Each place at which that validator refuses a row, with the class it files it under.
REFUSED = [
    ("data", '{"messages": [', "malformed_json"),
    ("ConversationFormatError, no list", {"title": "x"}, "missing_messages_list"),
    ("ConversationFormatError, two lists", chat_row(QUESTION, ANSWER, interactions=[QUESTION, ANSWER]), "two_message_lists"),
    (
        "ConversationFormatError, two tool lists",
        chat_row(QUESTION, ANSWER, tools=[tool()], available_tools=[tool()]),
        "two_tool_lists",
    ),
    ("MessageFormatError, no role", chat_row(QUESTION, ANSWER, {"content": "x"}, ANSWER), "message_missing_key"),
    ("MessageFormatError, two contents", chat_row(QUESTION | {"text": "x"}, ANSWER), "two_contents"),
    ("MessageFormatError, no content", chat_row({"role": "user"}, ANSWER), "message_missing_key"),
    (
        "MessageFormatError, two system prompts",
        chat_row(turn("system", "a"), turn("system", "b"), QUESTION, ANSWER),
        "multiple_system_messages",
    ),
    (
        "MessageFormatError, whose result",
        chat_row(QUESTION, calling(call()), turn("tool", "11 to 6"), ANSWER),
        "tool_call_id_missing",
    ),
    ("UnrecognizedRoleError", chat_row(QUESTION, turn("narrator", "He waits."), ANSWER), "unrecognized_role"),
    ("FunctionFormatError, no function", chat_row(QUESTION, ANSWER, tools=[{"type": "function"}]), "tool_definition"),
    ("FunctionFormatError, no name", chat_row(QUESTION, ANSWER, tools=[tool(name=...)]), "tool_definition"),
    ("FunctionFormatError, no description", chat_row(QUESTION, ANSWER, tools=[tool(description=...)]), "tool_definition"),
    ("FunctionFormatError, no parameters", chat_row(QUESTION, ANSWER, tools=[tool(parameters=...)]), "tool_definition"),
    ("FunctionFormatError, parameters", chat_row(QUESTION, ANSWER, tools=[tool(parameters="day")]), "tool_definition"),
    ("ToolCallFormatError, no id", chat_row(QUESTION, calling(call(id=...))), "tool_call_format"),
    ("ToolCallFormatError, no function", chat_row(QUESTION, calling({"id": "abcdefgh1"})), "tool_call_format"),
    (
        "ToolCallFormatError, no name",
        chat_row(QUESTION, calling({"id": "abcdefgh1", "function": {"arguments": "{}"}})),
        "tool_call_format",
    ),
    (
        "ToolCallFormatError, no arguments",
        chat_row(QUESTION, calling({"id": "abcdefgh1", "function": {"name": "f"}})),
        "tool_call_format",
    ),
    ("ToolCallFormatError, arguments", chat_row(QUESTION, calling(call(function={"arguments": {}}))), "tool_arguments_not_text"),
    ("InvalidMessageStructure, none", chat_row(), "missing_messages_list"),
    ("InvalidMessageStructure, the end", chat_row(QUESTION, ANSWER, QUESTION), "last_message_not_assistant"),
    ("InvalidMessageStructure, no answer", chat_row(QUESTION), "example_missing_assistant_message"),
    ("InvalidMessageStructure, order", chat_row(QUESTION, RESULT, ANSWER), "unexpected_role"),
    ("InvalidMessageStructure, too few results", chat_row(QUESTION, calling(call()), ANSWER), "tool_call_without_result"),
    (
        "InvalidMessageStructure, too many results",
        chat_row(QUESTION, calling(call()), RESULT, RESULT, ANSWER),
        "tool_result_without_call",
    ),
    (
        "InvalidAssistantMessage, both",
        chat_row(QUESTION, calling(call(), content="Wait."), RESULT, ANSWER),
        "content_and_tool_calls",
    ),
    ("InvalidAssistantMessage, neither", chat_row(QUESTION, turn("assistant", "")), "missing_content"),
    ("InvalidAssistantMessage, weight", chat_row(QUESTION, ANSWER | {"weight": 0.5}), "weight_not_0_or_1"),
    ("InvalidFunctionCall, id", chat_row(QUESTION, calling(call(id="call_1"))), "tool_call_id_format"),
    ("InvalidFunctionCall, null id", chat_row(QUESTION, calling(call(id="null")), RESULT, ANSWER), "tool_call_id_format"),
    ("InvalidFunctionCall, name", chat_row(QUESTION, calling(call(function={"name": "opening hours"}))), "tool_name"),
    (
        "InvalidToolMessage, name",
        chat_row(QUESTION, calling(call()), RESULT | {"name": "opening hours"}, ANSWER),
        "tool_name",
    ),
    (
        "InvalidToolMessage, id",
        chat_row(QUESTION, calling(call()), RESULT | {"tool_call_id": "call_1"}, ANSWER),
        "tool_result_without_call",
    ),
    ("InvalidTool, name", chat_row(QUESTION, ANSWER, tools=[tool(name="opening hours")]), "tool_name"),
    ("InvalidToolSchema", chat_row(QUESTION, ANSWER, tools=[tool(parameters={"properties": []})]), "tool_definition"),
]


@pytest.mark.parametrize(("row", "code"), [pytest.param(row, code, id=name) for name, row, code in REFUSED])
def test_what_mistral_finetune_refuses_is_an_error_under_its_rules(tmp_path: Path, row: object, code: str) -> None:
    sound = chat_row(QUESTION, ANSWER)
    found = look(tmp_path, [sound, row, sound], rules=Rules(guide="mistral"))
    assert (found.num_rows, found.num_bad) == (3, 1)
    wrong = [finding for finding in found.findings if finding.code == code]
    assert wrong, found.findings
    assert {(finding.source.line, finding.severity) for finding in wrong} == {(2, Severity.ERROR)}
    assert all(finding.detail and finding.mend for finding in wrong)


ACCEPTED = [
    chat_row(QUESTION, ANSWER),
    chat_row(
        turn("system", "You work in a shop."),
        QUESTION,
        ANSWER,
        QUESTION,
        ANSWER | {"weight": 0},
        QUESTION,
        ANSWER | {"weight": 1},
    ),
    chat_row(QUESTION, QUESTION, ANSWER),
    chat_row(QUESTION, calling(call()), RESULT, ANSWER, tools=[tool()]),
    chat_row(QUESTION, calling(call(), call(id="abcdefgh2")), RESULT, RESULT | {"tool_call_id": "abcdefgh2"}, ANSWER),
    chat_row(QUESTION, calling(call(), content=""), RESULT, ANSWER, available_tools=[tool()]),
    chat_row(QUESTION, ANSWER, only_last=True),
]


@pytest.mark.parametrize("row", ACCEPTED, ids=range(len(ACCEPTED)))
def test_what_mistral_finetune_accepts_is_no_error(tmp_path: Path, row: dict[str, object]) -> None:
    found = look(tmp_path, [chat_row(QUESTION, ANSWER), row], rules=Rules(guide="mistral"))
    assert [finding for finding in found.findings if finding.severity is Severity.ERROR] == []
    assert found.passes


def test_what_only_another_tool_refuses_is_a_warning_until_its_rules_are_asked_for(tmp_path: Path) -> None:
    row = chat_row(QUESTION, ANSWER | {"weight": 0.5, "mood": "good"})

    def severities(guide: str | None) -> dict[str, str]:
        findings: list[Finding] = look(tmp_path, [row], rules=Rules(guide=guide)).findings  # type: ignore[arg-type]
        return {finding.code: finding.severity.value for finding in findings}

    assert severities(None) == {"weight_not_0_or_1": "warning", "message_unrecognized_key": "warning"}
    assert severities("openai") == {"weight_not_0_or_1": "error", "message_unrecognized_key": "error"}
    assert severities("mistral") == {"weight_not_0_or_1": "error", "message_unrecognized_key": "warning"}
