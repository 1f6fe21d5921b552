"""The corrected copy: every row is in it or beside it, nothing else is written, and the source is never touched."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.validation import CODES, Rules, Severity, Validation, validate
from tunesmith.errors import UserError

Q = {"role": "user", "content": "Open?"}
A = {"role": "assistant", "content": "Yes, until six."}
SOUND = {"messages": [Q, A]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "hours", "arguments": "{}"}}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def fix(folder: Path, *rows: object, rules: Rules | None = None, **more: Any) -> Validation:
    source = folder / "rows.jsonl"
    source.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    before = source.read_bytes()
    found = validate([source], rules=rules or Rules(), fix=folder / "fixed.jsonl", **more)
    assert source.read_bytes() == before
    return found


def mended(folder: Path, row: object) -> dict[str, Any]:
    fix(folder, row)
    (found,) = lines(folder / "fixed.jsonl")
    return found


MENDS: list[tuple[str, object, object]] = [
    ("unrecognized_role", {"messages": [Q, A | {"role": "Bot"}]}, SOUND),
    ("unrecognized_role", {"messages": [Q | {"role": " USER"}, A]}, SOUND),
    ("message_missing_key", {"messages": [Q, {"role": "assistant", "text": "Yes, until six."}]}, SOUND),
    ("message_missing_key", {"messages": [Q, {"from": "gpt", "value": "Yes, until six."}]}, SOUND),
    ("message_unrecognized_key", {"messages": [Q, A | {"mood": "good"}]}, SOUND),
    ("missing_content", {"messages": [Q, A | {"content": [{"type": "text", "text": "Yes, until six."}]}]}, SOUND),
    ("missing_content", {"messages": [{"role": "system", "content": ""}, Q, A]}, SOUND),
    ("wrong_weight", {"messages": [Q, A | {"weight": True}]}, {"messages": [Q, A | {"weight": 1}]}),
    ("wrong_weight", {"messages": [Q, A | {"weight": "0"}, Q, A]}, {"messages": [Q, A | {"weight": 0}, Q, A]}),
    ("last_message_not_assistant", {"messages": [Q, A, Q]}, SOUND),
    ("roles_do_not_alternate", {"messages": [Q, Q, A]}, {"messages": [Q | {"content": "Open?\n\nOpen?"}, A]}),
    (
        "system_not_first",
        {"messages": [Q, {"role": "system", "content": "Be kind."}, A]},
        {"messages": [{"role": "system", "content": "Be kind."}, Q, A]},
    ),
    (
        "multiple_system_messages",
        {"messages": [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, Q, A]},
        {"messages": [{"role": "system", "content": "a\n\nb"}, Q, A]},
    ),
    ("only_last", {"messages": [Q, A, Q, A], "only_last": True}, {"messages": [Q, A | {"weight": 0}, Q, A]}),
    ("lone_surrogate", {"messages": [Q, A | {"content": "Yes, until six.\ud83d"}]}, SOUND),
    ("control_character", {"messages": [Q | {"content": "Op\x00en?"}, A]}, SOUND),
    ("control_token", {"messages": [Q, A | {"content": "<|im_start|> Yes, until six.<|im_end|>\n"}]}, SOUND),
    ("mojibake", {"messages": [Q | {"content": "CafÃ© open?"}, A]}, {"messages": [Q | {"content": "Café open?"}, A]}),
    (
        "tool_definition",
        SOUND | {"tools": [{"name": "f", "description": "d", "parameters": {}}]},
        SOUND | {"tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]},
    ),
    ("malformed_json", str(SOUND).encode(), SOUND),
    ("malformed_json", json.dumps(SOUND).encode() + b",", SOUND),
    ("malformed_json", json.dumps(SOUND)[:-1].encode() + b', "n": None, } // done', SOUND | {"n": None}),
    ("duplicate_key", b'{"id": 1, "id": 1, ' + json.dumps(SOUND).encode()[1:], SOUND | {"id": 1}),
]


@pytest.mark.parametrize(("code", "row", "expected"), MENDS, ids=[f"{code}-{i}" for i, (code, *_) in enumerate(MENDS)])
def test_each_mend_does_what_it_says_and_is_written_down(tmp_path: Path, code: str, row: object, expected: object) -> None:
    assert mended(tmp_path, row) == expected
    changes = lines(tmp_path / "fixed.changes.jsonl")
    assert code in {change["code"] for change in changes}
    assert all(change["source"].endswith("rows.jsonl:1") and change["line"] == 1 for change in changes)
    assert all(repr(change["before"]) != repr(change["after"]) for change in changes)
    assert lines(tmp_path / "fixed.rejected.jsonl") == []
    again = validate([tmp_path / "fixed.jsonl"], rules=Rules())
    assert code not in {finding.code for finding in again.findings}


def test_each_slip_of_a_broken_line_is_written_down(tmp_path: Path) -> None:
    line = json.dumps(SOUND)[:-1] + ", id: 'it\\'s \"1\"', "
    fix(tmp_path, line.encode() + b"/* x */ }")
    whole, *slips = lines(tmp_path / "fixed.changes.jsonl")
    assert (whole["at"], whole["before"], whole["after"]) == ("", line + "/* x */ }", SOUND | {"id": 'it\'s "1"'})
    place = line.index("id:") + 1
    assert [(slip["at"], slip["before"], slip["after"]) for slip in slips] == [
        (f"column {place}", "id", '"id"'),
        (f"column {place + 4}", "'it\\'s \"1\"'", '"it\'s \\"1\\""'),
        (f"column {len(line) + 1}", "/* x */", None),
        (f"column {line.rindex(',') + 1}", ",", None),
    ]
    assert {slip["code"] for slip in slips} == {"malformed_json"}


def test_every_mend_is_tried_above() -> None:
    tried = {code for code, *_ in MENDS}
    elsewhere = {"byte_order_mark", "blank_line", "legacy_function_role", "tool_call_id_format", "tool_arguments_not_text"}
    assert {code for code, entry in CODES.items() if entry.is_fixable} <= tried | elsewhere


def test_tool_calls_get_matching_ids_and_arguments_as_text(tmp_path: Path) -> None:
    function = {"name": "hours", "arguments": {"day": "Sunday"}}
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL | {"function": function}]}
    row = mended(tmp_path, {"messages": [Q, calling, {"role": "tool", "content": "11 to 6", "tool_call_id": "call_1"}, A]})
    call, result = row["messages"][1]["tool_calls"][0], row["messages"][2]
    assert call["id"] == result["tool_call_id"]
    assert len(call["id"]) == 9
    assert json.loads(call["function"]["arguments"]) == {"day": "Sunday"}
    assert validate([tmp_path / "fixed.jsonl"], rules=Rules(guide="mistral")).findings == []


def test_calls_and_results_without_ids_are_joined(tmp_path: Path) -> None:
    bare = {"type": "function", "function": {"name": "hours", "arguments": "{}"}}
    for call, result in ((bare, {"tool_call_id": "abcdefgh1"}), (bare | {"id": "abcdefgh1"}, {}), (bare, {})):
        calling = {"role": "assistant", "content": None, "tool_calls": [call]}
        row = mended(tmp_path, {"messages": [Q, calling, {"role": "tool", "content": "11 to 6", **result}, A]})
        assert row["messages"][1]["tool_calls"][0]["id"] == row["messages"][2]["tool_call_id"]


def test_the_old_role_of_tools_is_renamed(tmp_path: Path) -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    row = mended(
        tmp_path, {"messages": [Q, calling, {"role": "function", "name": "hours", "content": "1", "tool_call_id": "call_1"}, A]}
    )
    assert row["messages"][2]["role"] == "tool"


def test_the_old_spelling_of_calls_becomes_the_new_one_with_matching_ids(tmp_path: Path) -> None:
    calling = {"role": "assistant", "content": None, "function_call": {"name": "hours", "arguments": {"day": "Sunday"}}}
    row = mended(tmp_path, {"messages": [Q, calling, {"role": "function", "name": "hours", "content": "11 to 6"}, A]})
    call, result = row["messages"][1]["tool_calls"][0], row["messages"][2]
    assert "function_call" not in row["messages"][1]
    assert call == {
        "id": result["tool_call_id"],
        "type": "function",
        "function": {"name": "hours", "arguments": '{"day": "Sunday"}'},
    }
    assert (result["role"], len(call["id"])) == ("tool", 9)
    assert validate([tmp_path / "fixed.jsonl"], rules=Rules(guide="mistral")).findings == []


def test_a_call_in_both_spellings_is_left_to_a_person(tmp_path: Path) -> None:
    calling = {"role": "assistant", "content": None, "function_call": {"name": "hours", "arguments": "{}"}, "tool_calls": [CALL]}
    row = mended(tmp_path, {"messages": [Q, calling, {"role": "tool", "content": "1", "tool_call_id": "call_1"}, A]})
    assert row["messages"][1]["function_call"] == calling["function_call"]


def test_tools_that_the_template_does_not_print_are_named(tmp_path: Path, load_chat: Any) -> None:
    tool = {"type": "function", "function": {"name": "hours", "description": "d", "parameters": {}}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(SOUND | {"tools": [tool]}) + "\n" + json.dumps(SOUND) + "\n")
    for name, codes in (("chatml", []), ("llama3", ["tools_not_printed"])):
        found = validate([tmp_path / "rows.jsonl"], rules=Rules(), chat=load_chat(name))
        assert [(finding.code, finding.source.line) for finding in found.findings] == [(code, 1) for code in codes]


def test_sound_rows_keep_their_bytes_and_marks_of_the_file_go(tmp_path: Path) -> None:
    odd = (
        b'{"messages" :[{"content":"Open?","role":"user"},{"role":"assistant","content":"S\\u00ed, \\ud83d\\ude42."}],"n":1.10, "big":'
        + b"9" * 30
        + b"}"
    )
    found = fix(tmp_path, b"\xef\xbb\xbf" + odd, b"", json.dumps(SOUND).encode())
    assert (tmp_path / "fixed.jsonl").read_bytes() == odd + b"\n" + json.dumps(SOUND).encode() + b"\n"
    assert [change["code"] for change in lines(tmp_path / "fixed.changes.jsonl")] == ["byte_order_mark", "blank_line"]
    assert found.fixed is not None
    assert (found.fixed.num_written, found.fixed.num_changed, found.fixed.num_rejected) == (2, 2, 0)


def test_numbers_of_a_mended_row_stay_exact(tmp_path: Path) -> None:
    big = 123456789012345678901234567890
    assert mended(tmp_path, {"messages": [Q, A | {"role": "Bot"}], "big": big, "small": -(10**25)}) == SOUND | {
        "big": big,
        "small": -(10**25),
    }


def test_rows_that_cannot_be_mended_are_kept_whole_with_every_reason(tmp_path: Path) -> None:
    rows: list[object] = [SOUND, {"messages": [Q | {"content": "x" * 5000}], "id": 7}, SOUND, b'{"a": "caf\xe9', [1, 2]]
    found = fix(tmp_path, *rows)
    assert lines(tmp_path / "fixed.jsonl") == [SOUND, SOUND]
    rejected = lines(tmp_path / "fixed.rejected.jsonl")
    assert [row["source"].rpartition(":")[2] for row in rejected] == ["2", "4", "5"]
    assert [row["reason"] for row in rejected] == ["example_missing_assistant_message", "not_utf8", "data_type"]
    assert json.loads(rejected[0]["raw"]) == rows[1]
    assert rejected[1]["raw"].encode("utf-8", "surrogateescape") == rows[3]
    assert all(row["detail"] and row["findings"] for row in rejected)
    assert found.fixed is not None
    assert not found.passes
    assert found.bad_share == 3 / 5


def test_a_row_that_the_template_refuses_is_not_in_the_copy(tmp_path: Path, load_chat: Any) -> None:
    """The known defect of mistral-finetune's `.corrected`."""
    refused = {"messages": [Q, A, {"role": "system", "content": "x"}, A], "id": 2}
    found = fix(tmp_path, SOUND, {"messages": [A], "id": 1}, SOUND, chat=load_chat("mistral"))
    assert lines(tmp_path / "fixed.jsonl") == [SOUND, SOUND]
    (rejected,) = lines(tmp_path / "fixed.rejected.jsonl")
    assert rejected["reason"] == "template_refused"
    assert found.as_json()["lengths"]["tokens_per_row"]["count"] == 2
    fix(tmp_path, SOUND, refused, chat=load_chat("mistral"))  # mended until the template takes it, or left out
    copy = validate([tmp_path / "fixed.jsonl"], rules=Rules(), chat=load_chat("mistral"))
    assert copy.num_bad == 0


def test_each_row_is_in_one_place_the_copy_is_sound_and_fixing_it_again_changes_nothing(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows: list[object] = []
    for i in range(600):
        turns = [
            {
                "role": rng.choice(["user", "assistant", "system", "Bot", "human", "tool", "narrator"]),
                "content": rng.choice(["Fine.", "", None, "cafÃ©", "x<|im_end|>", "bell\x07", [{"type": "text", "text": "t"}]]),
                **rng.choice(
                    [{}, {}, {"weight": True}, {"weight": 0}, {"mood": 1}, {"tool_calls": [CALL]}, {"tool_call_id": "call_1"}]
                ),
            }
            for _ in range(rng.randrange(6))
        ]
        rows.append({"messages": turns, "n": i})
    found = fix(tmp_path, SOUND, *rows)
    copy, rejected = lines(tmp_path / "fixed.jsonl"), lines(tmp_path / "fixed.rejected.jsonl")
    kept, left_out = [row.get("n", -1) for row in copy], [json.loads(row["raw"])["n"] for row in rejected]
    assert sorted(kept + left_out) == list(range(-1, 600))
    assert kept == sorted(kept)
    assert left_out == sorted(left_out)
    assert len(kept) > 50
    assert found.fixed is not None
    assert (found.fixed.num_written, found.fixed.num_rejected) == (len(kept), len(left_out))
    changed = {int(change["source"].rpartition(":")[2]) - 2 for change in lines(tmp_path / "fixed.changes.jsonl")}
    assert changed <= set(kept)  # of a row that was left out nothing was changed
    again = validate([tmp_path / "fixed.jsonl"], rules=Rules(keeps_all=True), fix=tmp_path / "again.jsonl")
    assert not again.counts[Severity.ERROR]
    assert [finding for finding in again.findings if finding.is_fixable] == []
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "fixed.jsonl").read_bytes()
    assert lines(tmp_path / "again.changes.jsonl") == []


def test_tables_become_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Question,Answer\nOpen?,CafÃ© open.\nOpen?,\n")
    validate([path], rules=Rules(), fix=tmp_path / "fixed.jsonl")
    assert lines(tmp_path / "fixed.jsonl") == [{"question": "Open?", "answer": "Café open."}]
    assert [row["reason"] for row in lines(tmp_path / "fixed.rejected.jsonl")] == ["empty_content"]


@pytest.mark.parametrize(
    ("name", "data", "raws"),
    [
        (
            "a.csv",
            'question,answer\nOpen?,Yes.\nInches?,"12 inch\nOpen?,No.\nq,"a "word" b"\n',
            ['Inches?,"12 inch', 'q,"a "word" b"'],
        ),
        ("a.csv", f"question,answer\nOpen?,Yes.\n{'x' * 5000}\n", ["x" * 5000]),
        ("a.csv", f"question,answer\nOpen?,Yes.\n{'x' * 5000},\n", [json.dumps({"question": "x" * 5000, "answer": ""})]),
        ("a.json", '[{"question": "Open?", "answer": "Yes."}, ,\n{"question": "q", "ans', ["", '{"question": "q", "ans']),
        (
            "a.json",
            f'[{{"question": "Open?", "answer": "Yes."}},\n{{"question": "{"q" * 5000}}}]',
            [f'{{"question": "{"q" * 5000}}}]'],
        ),
    ],
)
def test_rows_of_other_files_that_cannot_be_read_are_kept_whole(tmp_path: Path, name: str, data: str, raws: list[str]) -> None:
    (tmp_path / name).write_text(data)
    found = validate([tmp_path / name], rules=Rules(), fix=tmp_path / "fixed.jsonl")
    rejected = lines(tmp_path / "fixed.rejected.jsonl")
    assert [row["raw"] for row in rejected] == raws
    assert all(row["reason"] and row["detail"] for row in rejected)
    assert found.fixed is not None
    assert (found.num_bad, found.fixed.num_rejected) == (len(raws), len(raws))
    assert found.fixed.num_written == found.num_rows - len(raws) == len(lines(tmp_path / "fixed.jsonl"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.csv", "prompt,completion\nwhere,café\nwhere else,caf#\n"),
        ("rows.jsonl", '{"prompt": "where", "completion": "café"}\n{"prompt": "where else", "completion": "caf#"}\n'),
    ],
)
def test_a_byte_that_is_no_text_is_not_taken_out_but_its_row_is_left_out(name: str, data: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data.encode().replace(b"#", b"\xe9"))
    validate([tmp_path / name], rules=Rules(), fix=tmp_path / "fixed.jsonl")
    assert "café" in (tmp_path / "fixed.jsonl").read_text()
    assert len(lines(tmp_path / "fixed.jsonl")) == 1
    (rejected,) = lines(tmp_path / "fixed.rejected.jsonl")
    assert rejected["reason"] == "not_utf8"
    assert rejected["detail"].startswith("byte 0xe9 ")
    assert lines(tmp_path / "fixed.changes.jsonl") == []


def test_several_files_go_into_one_copy_in_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(SOUND | {"file": name}) + "\n[1]\n")
    validate([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], rules=Rules(), fix=tmp_path / "fixed.jsonl.gz")
    again = validate([tmp_path / "fixed.jsonl.gz"], rules=Rules())
    assert (again.num_rows, again.num_bad) == (2, 0)
    assert [Path(row["source"]).name for row in lines(tmp_path / "fixed.rejected.jsonl")] == ["a.jsonl:2", "b.jsonl:2"]


@pytest.mark.parametrize("name", ["rows.jsonl", "link.jsonl"])
def test_a_source_is_never_overwritten(tmp_path: Path, name: str) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(SOUND) + "\n")
    (tmp_path / "link.jsonl").symlink_to(source)
    with pytest.raises(UserError, match="never overwritten"):
        validate([source], rules=Rules(), fix=tmp_path / name)
    assert source.read_text() == json.dumps(SOUND) + "\n"


def test_a_companion_never_overwrites_a_source_either(tmp_path: Path) -> None:
    source = tmp_path / "fixed.rejected.jsonl"
    source.write_text(json.dumps(SOUND) + "\n")
    with pytest.raises(UserError, match="never overwritten"):
        validate([source], rules=Rules(), fix=tmp_path / "fixed.jsonl")


_SCRIPT = """
import os, resource, signal, sys
from pathlib import Path
from tunesmith.data.validation import Rules, validate
from tunesmith.errors import OutOfSpace

source, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if mode == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    report = lambda done, total: None
else:
    stop = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}[mode]
    report = lambda done, total: os.kill(os.getpid(), stop) if done >= 2000 else None
try:
    validate([source], rules=Rules(), fix=out, on_progress=report)
except OutOfSpace as error:
    print(error)
"""


@pytest.mark.parametrize("mode", ["full", "kill", "term", "int"])
def test_nothing_half_written_is_left_whatever_ends_it(tmp_path: Path, mode: str) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "out" / "fixed.jsonl"
    content = "".join(json.dumps(SOUND | {"n": i, "pad": "x" * 60}) + "\n" for i in range(5000))
    source.write_text(content)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(source), str(out), mode], capture_output=True, text=True, check=False, timeout=120
    )
    left = [path.name for path in out.parent.iterdir()]
    assert [name for name in left if not name.endswith(".part")] == []
    if mode == "full":
        assert done.stdout.startswith("no space left for ")
        assert done.stdout.count("\n") == 1
        assert left == []
    elif mode == "int":
        assert left == []
    assert source.read_text() == content
    validate([source], rules=Rules(), fix=out)  # the same again goes through, and clears what was left
    assert sorted(path.name for path in out.parent.iterdir()) == ["fixed.changes.jsonl", "fixed.jsonl", "fixed.rejected.jsonl"]
    assert len(lines(out)) == 5000


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from tunesmith.data.validation import Rules, validate\n"
        "peaks = []\n"
        "for name in sys.argv[1:]:\n"
        "    validate([Path(name)], rules=Rules(), fix=Path(name + '.fixed.jsonl'))\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print((peaks[1] - peaks[0]) // 1024)"
    )
    for name, number in (("small.jsonl", 3_000), ("large.jsonl", 40_000)):
        source = tmp_path / name
        rows = ({"messages": [Q, A | {"content": f"Yes, until {i}."}], "pad": "x" * 900} for i in range(number))
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "small.jsonl"), str(tmp_path / "large.jsonl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "large.jsonl").stat().st_size > 38_000_000
    assert int(done.stdout) < 12  # MB more for 36 MB more of rows


def test_a_mended_row_keeps_the_spelling_of_its_numbers(tmp_path: Path) -> None:
    row = '{"messages": [{"role": "user", "content": "q\\u0007"}, {"role": "assistant", "content": "Yes.", "weight": 1.0}], "label": 1.50}'
    (tmp_path / "a.jsonl").write_text(row + "\n")
    validate([tmp_path / "a.jsonl"], rules=Rules(), fix=tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_text() == row.replace("\\u0007", "") + "\n"
