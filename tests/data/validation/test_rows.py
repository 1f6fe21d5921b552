"""One row with one thing wrong for each code, and sound rows that look as if something were."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tunesmith.data.chat import ChatFormat
from tunesmith.data.validation import CODES, Finding, Rules, Severity, Validation, validate
from tunesmith.errors import DataError, NotFound
from tunesmith.terminal import validation_screen

Q = {"role": "user", "content": "Do you open on Sundays?"}
A = {"role": "assistant", "content": "Yes, from eleven to six."}
SOUND = {"messages": [Q, A]}
LONG = "We are glad that you ask. " * 12


def asked(question: str, answer: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def look(path: Path, *lines: object, rules: Rules | None = None, chat: ChatFormat | None = None) -> Validation:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return validate([path], rules=rules or Rules(), chat=chat)


def codes(validation: Validation) -> list[str]:
    return [finding.code for finding in validation.findings]


def calls(arguments: str) -> dict[str, Any]:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [Q, {"role": "assistant", "content": None, "tool_calls": [call]}]}


FOUND: list[tuple[str, object]] = [
    ("lone_surrogate", asked("q", "half \ud83d")),
    ("control_character", asked("q", "a\x07b.")),
    ("control_character", asked("q\ufeff", "ab.")),
    ("control_token", asked("q", "Yes.<|im_end|>")),
    ("control_token", asked("[INST] q [/INST]", "Yes.")),
    ("mojibake", asked("q", "The cafÃ© is open, isnâ€™t it.")),
    ("replacement_character", asked("q", "The caf\ufffd is open.")),
    ("template_placeholder", asked("q", "Dear {{ first_name }}, we are open.")),
    ("template_placeholder", asked("q", "Call [insert number] or ${phone}.")),
    ("html_leftover", asked("q<br/>", "Yes.")),
    ("html_leftover", asked("q", "Ben &amp; Jerry.")),
    ("answer_equals_question", asked("Do you open  on Sundays", "do you open on sundays")),
    (
        "truncated_answer",
        asked(
            "q",
            LONG
            + "and then we go on and on with what nobody here would ever have wanted. to hear us say about it at length in so many words",
        ),
    ),
    ("truncated_answer", asked("q", "We are open on every day of the week but the")),
    ("truncated_answer", asked("q", "Run this:\n```\npip install x\n")),
    ("no_real_answer", asked("q", "N/A")),
    ("no_real_answer", asked("q", "...")),
    ("blank_content", asked("q", " \n ")),
    ("nothing_supervised", {"messages": [Q, A | {"weight": 0}]}),
    ("roles_do_not_alternate", {"messages": [Q, Q, A]}),
    ("starts_with_assistant", {"messages": [A, Q, A]}),
    ("system_not_first", {"messages": [Q, {"role": "system", "content": "Be kind."}, A]}),
    ("missing_user_message", {"messages": [{"role": "system", "content": "Be kind."}, A]}),
    ("only_last", {"messages": [Q, A, Q, A], "only_last": True}),
    ("wrong_weight", {"messages": [Q, A | {"weight": -1}]}),
    ("wrong_weight", {"messages": [Q, A | {"weight": [1]}]}),
    ("wrong_type", {"messages": {"role": "user"}}),
    ("wrong_type", {"messages": [Q, "Yes."]}),
    ("legacy_function_role", {"messages": [Q, {"role": "function", "name": "f", "content": "1"}, A]}),
    ("legacy_function_role", {"messages": [Q, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]}),
    *(
        ("tool_arguments_not_json", calls(arguments))
        for arguments in ("{", "[1]", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}')
    ),
    ("tool_definition", {"messages": [Q, A], "tools": '[{"type": "function", "type": "other"}]'}),
    ("lone_surrogate", {"messages": [Q, A], "tools": [{"type": "function", "function": {"name": "\ud83d"}}]}),
    (
        "language_mix",
        asked(
            "Guten Tag, ich möchte gerne wissen, ob Sie am Sonntag geöffnet haben und wie ich zu Ihnen komme, vielen Dank.",
            "Bonjour, nous sommes ouverts le dimanche de onze heures à dix-huit heures, et vous pouvez venir en tramway.",
        ),
    ),
    ("malformed_json", b'{"messages": ['),
    ("malformed_json", b'{"messages": NaN}'),
    ("malformed_json", b'{"a": ' + b"[" * 100_000),
    ("malformed_json", b'{"a": ' + b"9" * 5000 + b"}"),
    ("data_type", [1, 2]),
    ("duplicate_key", b'{"messages": [], "messages": []}'),
    ("duplicate_key", b'{"messages": [{"role": "user", "role" : "assistant"}]}'),
    ("duplicate_key", rb'{"a\\": 1, "a\\": 2}'),
    ("not_utf8", b'{"messages": "caf\xe9"}'),
    ("blank_line", b"  "),
]


@pytest.mark.parametrize(("code", "row"), FOUND, ids=[f"{code}-{i}" for i, (code, _) in enumerate(FOUND)])
def test_each_thing_is_found_at_its_line_with_reason_and_mend(tmp_path: Path, code: str, row: object) -> None:
    found = look(tmp_path / "rows.jsonl", SOUND, row, SOUND)
    wrong = [finding for finding in found.findings if finding.code == code]
    assert wrong, found.findings
    assert {finding.source.line for finding in found.findings} == {2}
    for finding in wrong:
        assert finding.severity == CODES[code].severity
        assert finding.detail
        assert finding.mend == CODES[code].mend
        assert len(finding.value) <= 80
        finding.value.encode()  # can be printed anywhere


SOUND_ROWS: list[object] = [
    SOUND,
    asked("q", "Use `<br>` for a break, and `{{name}}` for a name."),
    asked("q", "```html\n<p>Hello &amp; {{name}}</p>\n```"),
    asked("q", "1 < 2 and a[0] == b & c, for $5."),
    asked("Wie geht's? Ça va? 你好吗? Ĉu bone?", "Naïve café — déjà vu “quoted” 東京 🙂."),
    asked("q", "- one\n- two\n- three"),
    asked("List them.", LONG + "\n\n" + "Blue, red and yellow dresses in every size from small to large"),
    asked("q", "Paris"),
    asked("say null", "The word null is a word."),
    {"messages": [{"role": "system", "content": "Be kind."}, Q, A, Q, A], "id": 7, "tags": {"a": ["b", {"c": 1}]}},
    {"messages": [Q | {"name": "Ann"}, A | {"weight": 1}]},
    b'  {"messages" : [{"role": "user", "content": "a \\":\\" b \\\\"}, {"role": "assistant", "content": "Yes, {\\"a\\": 1}."}]}  ',
    b'{"messages": [{"role": "user", "content": "\\ud83d\\ude42"}, {"role": "assistant", "content": "Fine."}]}',
    b'{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Fine."}], "n": [1e3, 12345678901234567890123]}',
]


@pytest.mark.parametrize("row", SOUND_ROWS, ids=range(len(SOUND_ROWS)))
def test_nothing_is_found_in_a_sound_row(tmp_path: Path, row: object) -> None:
    found = look(tmp_path / "rows.jsonl", SOUND, row)
    assert found.findings == []
    assert (found.num_rows, found.num_bad, found.num_doubtful, found.passes) == (2, 0, 0, True)


def test_what_only_the_reader_refuses_is_found_too(tmp_path: Path) -> None:
    found = look(tmp_path / "rows.jsonl", {"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": ""}, {"prompt": "q"})
    assert [(finding.source.line, finding.severity) for finding in found.findings] == [(2, Severity.ERROR), (3, Severity.ERROR)]
    assert codes(found) == ["empty_content", "missing_field"]


def test_texts_in_columns_are_checked_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\nOpen?,Yes.\nOpen <br>?,N/A\n")
    found = validate([path], rules=Rules())
    assert [(finding.code, finding.source.line, finding.at) for finding in found.findings] == [
        ("html_leftover", 3, "question"),
        ("no_real_answer", 3, "assistant"),
    ]


def test_sharegpt_rows_are_conversations(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "Yes, <br> we are."}]
    found = look(tmp_path / "rows.jsonl", {"conversations": turns}, {"conversations": turns[:1]})
    assert [(f.code, f.at) for f in found.findings if f.source.line == 1] == [("html_leftover", "conversations[1].value")]
    assert [f.code for f in found.findings if f.source.line == 2] == ["example_missing_assistant_message"]


def test_marks_of_the_file_are_told_and_are_no_rows(tmp_path: Path) -> None:
    found = look(tmp_path / "rows.jsonl", b"\xef\xbb\xbf" + json.dumps(SOUND).encode(), b"", SOUND)
    assert codes(found) == ["byte_order_mark", "blank_line"]
    assert (found.num_rows, found.num_bad, found.num_doubtful) == (2, 0, 1)


def test_an_id_that_stands_twice_is_told_with_its_first_place(tmp_path: Path) -> None:
    found = look(
        tmp_path / "rows.jsonl",
        SOUND | {"id": "a"},
        SOUND | {"id": 1},
        SOUND | {"id": "a"},
        SOUND | {"id": None},
        SOUND | {"id": None},
    )
    (finding,) = found.findings
    assert (finding.code, finding.source.line) == ("duplicate_id", 3)
    assert finding.detail.endswith("rows.jsonl:1 too")


def test_packed_files_are_read_like_plain_ones(tmp_path: Path) -> None:
    content = (json.dumps(SOUND) + "\n" + json.dumps([1]) + "\n").encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(content))
    found = validate([tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.zst"], rules=Rules())
    assert [(finding.source.path, finding.code) for finding in found.findings] == [
        (str(tmp_path / "a.jsonl.gz"), "data_type"),
        (str(tmp_path / "b.jsonl.zst"), "data_type"),
    ]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content)[:-9])
    (tmp_path / "b.jsonl.zst").write_bytes(b"not packed at all")
    for name in ("a.jsonl.gz", "b.jsonl.zst"):
        with pytest.raises(DataError, match="is not sound"):
            validate([tmp_path / name], rules=Rules())


def test_files_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        validate([tmp_path / "empty.jsonl"], rules=Rules())
    with pytest.raises(NotFound, match="no such file"):
        validate([tmp_path / "absent.jsonl"], rules=Rules())


def test_rows_are_rendered_where_a_tokenizer_is_given(tmp_path: Path, load_chat: Any) -> None:
    other = {"messages": [Q, A, A]}
    found = look(
        tmp_path / "rows.jsonl",
        SOUND,
        other,
        asked("q", "Yes, we are. " * 30),
        rules=Rules(max_tokens=100),
        chat=load_chat("mistral"),
    )
    assert [(f.source.line, f.code) for f in found.findings if f.code in {"template_refused", "over_token_limit"}] == [
        (2, "template_refused"),
        (3, "over_token_limit"),
    ]
    lengths = found.as_json()["lengths"]["tokens_per_row"]
    (expected,) = {len(one.tokens) for one in load_chat("mistral").render(_record(SOUND))}
    assert (lengths["count"], lengths["min"]) == (2, expected)  # a row that was refused lends its length to nobody


def _record(row: dict[str, Any]) -> Any:
    from tunesmith.records import Message, Record, Role, Source

    messages = tuple(Message(role=Role(turn["role"]), content=turn["content"]) for turn in row["messages"])
    return Record(id="", source=Source(path="", line=1), messages=messages)


def test_findings_are_capped_and_all_are_counted(tmp_path: Path) -> None:
    rows = [asked("q", "N/A")] * 130 + [[1]] * 3
    found = look(tmp_path / "rows.jsonl", *rows)
    assert (len(found.findings), found.num_left_out) == (103, 30)
    assert found.as_json()["warnings"] == {"no_real_answer": 130}
    assert found.as_json()["errors"] == {"data_type": 3}
    everything = look(tmp_path / "rows.jsonl", *rows, rules=Rules(keeps_all=True))
    assert (len(everything.findings), everything.num_left_out) == (133, 0)


def test_the_gate_lets_its_own_share_pass_and_never_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert look(path, *[SOUND] * 98, [1], [1], rules=Rules(max_bad_share=0.02)).passes
    assert not look(path, *[SOUND] * 98, [1], [1], rules=Rules(max_bad_share=0.019)).passes
    assert not look(path, [1], rules=Rules(max_bad_share=1.0)).passes


def test_no_soup_of_values_brings_it_down(tmp_path: Path) -> None:
    """Thousands of rows in which any value may stand anywhere."""
    rng = random.Random(7)
    leaves: list[Any] = [None, True, 0, 1.5, -1, "", " ", "x", "user", "assistant", "tool", "call_1", "\ud800", "{}", "[", 10**30]
    keys = [
        "role",
        "content",
        "from",
        "value",
        "weight",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "tool_call_id",
        "text",
        "parameters",
    ]

    def value(depth: int) -> Any:
        kind = rng.random()
        if depth > 3 or kind < 0.5:
            return rng.choice(leaves)
        if kind < 0.7:
            return [value(depth + 1) for _ in range(rng.randrange(3))]
        return {rng.choice(keys): value(depth + 1) for _ in range(rng.randrange(5))}

    tops = ["messages", "conversations", "interactions", "tools", "available_tools", "only_last", "id"]
    rows: list[object] = [SOUND]
    for _ in range(4000):
        row = {rng.choice(tops): value(0) for _ in range(rng.randrange(4))}
        row["messages"] = [{rng.choice(keys[:9]): value(1) for _ in range(rng.randrange(1, 5))} for _ in range(rng.randrange(4))]
        rows.append(row)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = validate([path], rules=Rules(), fix=tmp_path / "fixed.jsonl")
    assert found.num_rows == 4001
    findings: list[Finding] = found.findings
    assert all(finding.detail for finding in findings)


def test_rows_that_hold_several_are_looked_at_item_by_item(tmp_path: Path, load_chat: Any) -> None:
    questions = [{"question": "q", "answer": "Yes, until six."}, {"question": "r"}, {"question": "s", "answer": "Yes.<|im_end|>"}]
    rows = [{"document": "d <|im_start|>", "questions": questions}, {"document": "d", "questions": questions[:1] * 3}]
    found = look(tmp_path / "rows.jsonl", *rows, chat=load_chat("chatml"))
    assert found.files[0].format == "questions (a document and its questions in 2 of 2 rows)"
    assert [(one.source.line, one.code, one.at) for one in found.findings] == [
        (1, "control_token", "document"),
        (1, "control_token", "questions[2].answer"),
        (1, "missing_field", "questions[1]"),
    ]
    assert (found.num_rows, found.num_bad) == (2, 1)
    assert sum(found.statistics.tokens_per_row.counts.values()) == 5


def test_lower_ranked_answers_are_no_finding(tmp_path: Path) -> None:
    replies = [{"role": "assistant", "text": f"Yes, until {i}.", "rank": i, "replies": []} for i in range(3)]
    found = look(tmp_path / "rows.jsonl", {"prompt": {"role": "prompter", "text": "Open?", "replies": replies}})
    assert found.findings == []
    assert found.files[0].format.startswith("tree (")


def test_the_mend_of_a_broken_table_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question,answer\nWho?,Me\nWhat?,"12 inch\nWhere?,"there\n')
    found = validate([tmp_path / "a.csv"], rules=Rules())
    mend = "Close the quote, or write one within a quoted cell twice."
    assert [finding.code for finding in found.findings] == ["malformed_csv"] * 2
    assert str(validation_screen(found)).count(mend) == 1


def test_two_system_prompts_are_an_error_also_in_a_row_of_plain_messages(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be terse."}
    found = look(tmp_path / "a.jsonl", SOUND, {"system": "Be long.", "messages": [system, Q, A]})
    assert (codes(found), found.num_bad) == (["two_system_prompts"], 1)
    assert not look(tmp_path / "b.jsonl", {"system": "Be terse.", "messages": [system, Q, A]}).num_bad


def test_messages_that_are_null_are_called_null_and_all_rows_are_100_percent(tmp_path: Path) -> None:
    found = look(tmp_path / "a.jsonl", {"messages": None})
    assert found.findings[0].detail == "`messages` is null"
    assert "1 bad (100 %)" in str(validation_screen(found))
    assert "(100 %, the gate is 1 %)" in found.refusal


def test_an_empty_file_among_others_is_told_and_the_others_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    look(tmp_path / "all" / "b.jsonl", SOUND)
    (tmp_path / "all" / "a.jsonl").write_bytes(b"")
    found = validate([tmp_path / "all"], rules=Rules())
    assert [(Path(file.name).name, file.num_rows) for file in found.files] == [("a.jsonl", 0), ("b.jsonl", 1)]
    assert "a.jsonl: empty: it has no row" in str(validation_screen(found))
    (tmp_path / "all" / "b.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="no file has a row"):
        validate([tmp_path / "all"], rules=Rules())


@pytest.mark.parametrize("cell", ["#REF!", "#N/A", "#NAME?", "#DIV/0!", "#NV"])
def test_an_error_of_excel_is_no_answer(tmp_path: Path, cell: str) -> None:
    assert codes(look(tmp_path / "a.jsonl", asked("What does it cost?", cell))) == ["no_real_answer"]
