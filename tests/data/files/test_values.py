import io
import json
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.files.conftest import OneByteAtATime

from tunesmith.data.files import BadRow, RawRow
from tunesmith.data.files.values import Layout, json_layout, json_rows

Read = Callable[..., list[RawRow]]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=9,
)
# Lower case and no space, as the reader makes keys, and two of them, so that no row looks like another layout.
objects = st.fixed_dictionaries({"a": values, "b": st.text(max_size=5)})


def contents(rows: list[RawRow]) -> list[object]:
    return [row.content for row in rows if not isinstance(row.content, BadRow)]


@pytest.mark.parametrize(
    "spell",
    [
        lambda rows: "\n".join(map(json.dumps, rows)),
        json.dumps,
        lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
        lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
        lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
        lambda rows: json.dumps({"data": rows}),
        lambda rows: json.dumps({"version": 1, "train": rows[:1], "test": rows[1:]}, indent=4),
        lambda rows: json.dumps({key: [row[key] for row in rows] for key in rows[0]}),
    ],
    ids=["lines", "array", "pretty array", "pretty objects", "array of lines", "under data", "splits", "columns"],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_rows_are_the_same_however_json_holds_them(spell: Callable[[list[object]], str], name: str, rows_in: Read) -> None:
    rows = [{"q": f'a [{{,\\" {i}', "n": [i, {"x": "]"}]} for i in range(5)]
    if name == "a.jsonl" and spell(rows).startswith("{") and spell(rows).count("\n") == 0:
        pytest.skip("a line that is an object is a row")
    assert contents(rows_in(name, spell(rows).encode())) == rows


def test_squad_file_gives_its_articles(rows_in: Read) -> None:
    qas = [{"id": "1", "question": "q", "answers": [{"text": "a", "answer_start": 0}]}]
    whole = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": qas}]}]}
    assert contents(rows_in("a.json", json.dumps(whole).encode())) == whole["data"]


def test_one_list_of_objects_gives_its_rows_whatever_its_name(rows_in: Read) -> None:
    rows = [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]
    assert contents(rows_in("a.json", json.dumps({"faqs": rows}, indent=1).encode())) == rows


def test_one_pretty_conversation_is_one_row(rows_in: Read) -> None:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert contents(rows_in("a.json", json.dumps(row, indent=2).encode())) == [row]


def test_broken_element_is_a_bad_row_at_its_line_and_those_after_it_are_read(rows_in: Read) -> None:
    rows = rows_in("a.json", b'[\n{"a": 1},\n{"a": nope},\n,\n{"a": 2}\n]')
    assert [(row.line, row.content.reason if isinstance(row.content, BadRow) else row.content) for row in rows] == [
        (2, {"a": 1}),
        (3, "malformed_json"),
        (4, "malformed_json"),
        (5, {"a": 2}),
    ]


def test_the_rest_of_a_file_that_ends_inside_a_value_keeps_its_text(rows_in: Read) -> None:
    rest = '{"a": 2,\n "b": "' + "x" * 3000
    _, last = rows_in("a.json", f'[\n{{"a": 1}},\n{rest}\n'.encode())
    assert isinstance(last.content, BadRow)
    assert (last.line, last.content.reason, last.raw) == (3, "malformed_json", rest)
    _, long = rows_in("a.json", b'[{"a": 1}, "' + b"x" * (2 << 20))
    assert len(long.raw) == 1 << 20
    assert long.raw.startswith('"xxx')


@pytest.mark.parametrize(
    "text",
    ['[{"a":1}', '[{"a":1},]', '[{"a":1}]]', '[{"a":1}] x', '[{"a":1} {"a":2}]', '{"a":1}{"a":2}', '{"a":[1}', "[][]x",
     '[{"a":1},\x0c]', '{"a":1}#'],
)  # fmt: skip
def test_what_is_not_json_is_never_taken_in_silence(text: str, rows_in: Read) -> None:
    assert any(
        isinstance(row.content, BadRow) and row.content.reason == "malformed_json" for row in rows_in("a.json", text.encode())
    )


def test_python_literals_are_read_only_where_every_line_is_one(rows_in: Read) -> None:
    lines = [repr({"q": f"it's {i}", "n": None}) for i in range(4)]
    assert contents(rows_in("a.jsonl", "\n".join(lines).encode())) == [{"q": f"it's {i}", "n": None} for i in range(4)]
    mixed = rows_in("b.jsonl", "\n".join([*lines, '{"q": 1}']).encode())
    assert [isinstance(row.content, BadRow) for row in mixed] == [True] * 4 + [False]
    (lone,) = rows_in("c.json", b"{'a': 0}")
    assert isinstance(lone.content, BadRow)


def test_a_python_literal_that_would_join_two_texts_is_no_row(rows_in: Read) -> None:
    lines = ["{'a': ['x', 'y']}"] * 4
    assert contents(rows_in("a.jsonl", "\n".join(lines).encode())) == [{"a": ["x", "y"]}] * 4
    # As numpy prints an array of texts: without commas, which Python would read as the one text `xy`.
    joined = rows_in("b.jsonl", "\n".join([*lines, "{'a': ['x' 'y']}"]).encode())
    assert isinstance(joined[-1].content, BadRow)


def test_key_that_stands_twice_is_refused_only_if_its_values_differ(rows_in: Read) -> None:
    rows = rows_in("a.jsonl", b'{"a": 1, "a" : 1}\n{"a": 1, "a" :2}\n{"b": {"a": "\\":", "a": 2}}')
    assert [isinstance(row.content, BadRow) for row in rows] == [False, True, True]


def test_integers_beyond_64_bits_keep_every_digit(rows_in: Read) -> None:
    assert contents(rows_in("a.jsonl", b'{"a": 12345678901234567890123}')) == [{"a": 12345678901234567890123}]


@given(rows=st.lists(objects, max_size=6), indent=st.sampled_from([None, 0, 2]))
@settings(deadline=None)
def test_array_is_cut_alike_wherever_blocks_end(rows: list[object], indent: int | None) -> None:
    data = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
    whole = list(json_rows(io.BytesIO(data), Layout("values")))
    assert list(json_rows(OneByteAtATime(data), Layout("values"))) == whole  # type: ignore[arg-type]
    assert [row.content for row in whole] == rows


def test_array_of_any_size_is_read_in_constant_memory() -> None:
    row = json.dumps({"text": "x" * 500}).encode() + b",\n"

    class Endless(io.RawIOBase):
        left = 60_000  # rows: 30 MB, more than may be held

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            count = min(self.left, max(1, size // len(row)))
            first, self.left = self.left == 60_000, self.left - count
            return (b"[" if first else b"") + row * count if count else b""

    tracemalloc.start()
    num_rows = sum(isinstance(found.content, dict) for found in json_rows(Endless(), Layout("values")))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_rows == 60_000
    assert peak < 20e6


@given(data=st.binary(max_size=200) | st.text('[]{},:"\\ \n01ae', max_size=60).map(str.encode))
@settings(max_examples=400, deadline=None)
def test_no_bytes_crash_the_cutter(data: bytes) -> None:
    for layout in (json_layout(io.BytesIO(data), kind=".json"), Layout("values")):
        for row in json_rows(io.BytesIO(data), layout):
            assert isinstance(row.content, dict | BadRow)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('{"data": [\n  {"q": "a",\n   "x": {"y": [{"z": "}{"}]}},\n\n  {"q": "b"}, {"q": "c"}\n]}', [2, 5, 5]),
        ('\n\n{"version": 1, "data": [\n{"q": "a"},\n{"q": "b"}]}', [4, 5]),
        ('{"train": [\n{"q": "a"}],\n"test": [\n{"q": "b"}]}', [2, 4]),
        ('{"1": {"q": "a"},\n"2":\n {"q": "b",\n "c": {"d": 1}}}', [1, 3]),
        ('{"q": ["a", "b"],\n"a": ["c", "d"]}', [1, 1]),
        ('{"q": "a",\n"x": {"y": 1}}', [1]),
    ],
)
def test_rows_inside_one_object_have_the_lines_on_which_they_begin(text: str, lines: list[int]) -> None:
    assert [row.line for row in json_rows(io.BytesIO(text.encode()), Layout("values"))] == lines
