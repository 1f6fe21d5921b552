"""A quote astray in a table costs its own line and no other, and every line is in exactly one row."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith.data.files import BadRow, RawRow, tables
from tunesmith.errors import DataError

Read = Callable[..., list[RawRow]]
GOOD = [f"What is the price of item number {i}?,It costs {i} francs" for i in range(300)]
OPEN = 'What about inches?,"12 inch'


def rows_of(text: str) -> list[RawRow]:
    return list(tables.table_rows(io.BytesIO(text.encode()), delimiters=",", name="a.csv"))


def table(*lines: str) -> str:
    return "\n".join(("question,answer", *lines)) + "\n"


def bad_of(rows: list[RawRow]) -> list[tuple[int, str, str]]:
    return [(row.line, row.content.reason, row.raw) for row in rows if isinstance(row.content, BadRow)]


@pytest.mark.parametrize(
    "later",
    [
        'A quoted one?,"a quoted cell"',
        '"Both?","quoted cells"',
        'Empty?,""',
        'Doubled?,"a ""word"" in it"',
        '"Three","of","them"',
    ],
)
@pytest.mark.parametrize("at", [149, 298, 299])
def test_an_open_quote_costs_its_own_line_alone(later: str, at: int) -> None:
    lines = [*GOOD[:149], OPEN, *GOOD[150:]]
    if at != 299:
        lines[at + 1 if at == 149 else at] = later
    rows = rows_of(table(*lines))
    assert bad_of(rows)[0] == (151, "malformed_csv", OPEN)
    assert [row.line for row in rows] == list(range(2, 302))
    bad_lines = {151} | ({row.line for row in rows if row.raw == later} if later.count(",") == 2 else set())
    assert {line for line, _, _ in bad_of(rows)} == bad_lines
    for row, line in zip(rows, lines, strict=True):
        assert row.raw == line


def test_an_open_quote_and_one_behind_a_word_are_two_faults_where_rows_stand_between() -> None:
    closing = 'A screen?,of 14",nice'
    rows = rows_of(table(OPEN, *GOOD[:9], closing, GOOD[9]))
    assert bad_of(rows) == [(2, "malformed_csv", OPEN), (12, "too_many_columns", closing)]
    assert len(rows) == 12


def test_a_row_over_lines_that_lacks_a_column_stays_one_row_with_all_its_text() -> None:
    whole = '"A letter:\n\nDear all,\nI write\nto you"'
    rows = rows_of(table(GOOD[0], whole, GOOD[1]))
    assert bad_of(rows) == [(3, "too_few_columns", whole)]
    assert [row.line for row in rows] == [2, 3, 8]


def test_a_quote_within_a_quoted_cell_costs_its_line_which_keeps_its_text() -> None:
    bad = 'q3?,"bad "quote" here"'
    rows = rows_of(table(GOOD[0], bad, GOOD[1]))
    assert bad_of(rows) == [(3, "malformed_csv", bad)]
    assert len(rows) == 3


def test_a_bad_row_keeps_all_its_text_and_what_is_no_utf8_spelt_out() -> None:
    data = b'question,answer\nq,"\xe9 ' + b"x" * 5000 + b"\n"
    (row,) = tables.table_rows(io.BytesIO(data), delimiters=",", name="a.csv")
    assert row.raw == 'q,"\\udce9 ' + "x" * 5000


def test_a_quote_is_looked_for_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    long = 'Long?,"' + "a line of a cell\n" * 100 + 'end"'
    assert len(rows_of(table(long, GOOD[0]))) == 2
    monkeypatch.setattr(tables, "_MAX_AHEAD", 3000)
    rows = rows_of(table(OPEN, *GOOD, *['"Two\nlines?",a'] * 3))
    assert bad_of(rows) == [(2, "malformed_csv", OPEN)]
    assert len(rows) == 304
    held: list[str] = []
    with pytest.raises(csv.Error):
        for _ in tables._held_back((GOOD[0] for _ in range(1000)), held):
            pass
    assert len(held) < 50


@pytest.mark.parametrize("line", ['q,"12 inch', 'x""","z', '"""', 'a,"b""', '"a\nb"', 'q,"12 inch\n' + GOOD[0]])
def test_lines_are_read_a_few_times_however_many_quotes_are_astray(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    num_read = 0
    reader = csv.reader

    def counting(lines: Iterable[str], **options: Any) -> Iterator[list[str]]:
        def counted() -> Iterator[str]:
            nonlocal num_read
            for one in lines:
                num_read += 1
                yield one

        return reader(counted(), **options)

    monkeypatch.setattr(csv, "reader", counting)
    text = table(*[line] * 500)
    assert rows_of(text)
    assert num_read <= 4 * text.count("\n")


@given(st.text(alphabet='ab,"\n', max_size=60))
@example('q,"a\nb,c\nd,e\nf",g,h\n')
def test_every_line_is_in_one_row_word_by_word(body: str) -> None:
    lines = ["question,answer", *body.split("\n")]
    covered = [1]
    for row in rows_of("\n".join(lines)):
        for number, text in enumerate(row.raw.split("\n"), start=row.line):
            assert lines[number - 1] == text
            covered.append(number)
    assert sorted(set(covered)) == covered
    assert all(not lines[number - 1].strip(',"') for number in range(1, len(lines) + 1) if number not in covered)


cells = st.text(alphabet='ab ,;"\n\rä', max_size=12)


@given(st.lists(st.tuples(cells, cells), max_size=8), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_a_writer_of_csv_writes_is_read_cell_by_cell(written: list[tuple[str, str]], quoting: Any) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=quoting).writerows([("question", "answer"), *written])
    told = [(one, two) for one, two in written if one.strip() or two.strip()]
    assert [row.content for row in rows_of(file.getvalue())] == [{"question": one, "answer": two} for one, two in told]


@pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"'])
def test_the_line_by_which_excel_is_told_the_delimiter_is_no_header(first: str) -> None:
    rows = list(tables.table_rows(io.BytesIO(f"{first}\nq;a,b,c\nWho?;Me\n".encode()), delimiters=",;", name="a.csv"))
    assert [(row.line, row.content) for row in rows] == [(3, {"q": "Who?", "a,b,c": "Me"})]


def test_empty_columns_and_rows_as_excel_writes_them_are_none_and_what_stands_in_one_is_told() -> None:
    rows = rows_of("question,answer,,\nWho?,Me,,\n,,,\nWhat?,That\n , ,,\nWhere?,There,or here,\n")
    assert [(row.line, row.content) for row in rows[:2]] == [
        (2, {"question": "Who?", "answer": "Me"}),
        (4, {"question": "What?", "answer": "That"}),
    ]
    assert bad_of(rows) == [(6, "too_many_columns", "Where?,There,or here,")]


def test_a_column_without_a_name_gets_its_number() -> None:
    assert [row.content for row in rows_of(",question,answer\n0,Who?,Me\n")] == [
        {"column 1": "0", "question": "Who?", "answer": "Me"}
    ]


def test_json_that_is_named_as_a_table_is_told() -> None:
    with pytest.raises(DataError, match=r"a\.csv:1  the file holds JSON and is named as a table"):
        rows_of('{"question": "Who?", "answer": "Me"}\n')


def test_a_column_that_stands_twice_is_named() -> None:
    with pytest.raises(DataError, match="`answer` stands twice"):
        rows_of("question,answer,answer\nWho?,Me,You\n")
