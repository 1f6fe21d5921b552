import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.data import SourceConfig, read, source_digests
from tunesmith.data.collect import collect
from tunesmith.data.config import DataConfig
from tunesmith.errors import DataError, NotFound
from tunesmith.records import Dropped, Message, Record, Role

GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'


def write(path: Path, lines: Iterable[str | bytes]) -> Path:
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


def rows_of(folder: Path, name: str, **config: object) -> list[Record | Dropped]:
    return list(read(SourceConfig(path=name, **config), folder=folder).rows)


def asked_and_answered(row: Record | Dropped) -> tuple[str, str]:
    assert isinstance(row, Record)
    assert [message.role for message in row.messages] == [Role.USER, Role.ASSISTANT]
    return row.messages[0].content, row.messages[1].content


def messages(*turns: tuple[object, object]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


def test_messages_keep_role_weight_and_place(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0.5},
    ]
    write(tmp_path / "a.jsonl", ["", json.dumps({"messages": turns}), "", GOOD])
    reading = read(SourceConfig(path="a.jsonl"), folder=tmp_path)
    assert reading.formats == {"a.jsonl": "messages (role/content in 2 of 2 rows)"}
    first, second = reading.rows
    assert isinstance(first, Record)
    assert first.messages == (
        Message(role=Role.SYSTEM, content=""),
        Message(role=Role.USER, content="q"),
        Message(role=Role.ASSISTANT, content="a", weight=0.5),
    )
    assert [str(row.source) for row in (first, second)] == ["a.jsonl:2", "a.jsonl:4"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "completion": "a"}, ("q", "a")),
        ({"instruction": "q", "response": "a", "intent": "x"}, ("q", "a")),
        ({"Question": "q", "Answer ": "a"}, ("q", "a")),
        ({"question": "q", "answers": ["a", "b"]}, ("q", "a")),
        ({"question": "q", "answers": {"text": ["a"], "answer_start": [3]}}, ("q", "a")),
        ({"dialogue": "q", "summaries": ["a"]}, ("q", "a")),
        ({"text": "q", "summary": "a"}, ("q", "a")),
        ({"instruction": "q", "input": "i", "output": "a"}, ("q\n\ni", "a")),
        ({"instruction": "q", "input": " ", "output": "a"}, ("q", "a")),
        ({"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, ("q", "a")),
    ],
)
def test_known_layouts_become_conversations(tmp_path: Path, row: dict[str, object], expected: tuple[str, str]) -> None:
    write(tmp_path / "a.jsonl", [json.dumps(row)])
    assert asked_and_answered(rows_of(tmp_path, "a.jsonl")[0]) == expected


def test_format_is_that_of_most_rows_and_may_be_demanded(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ['{"text": "t", "prompt": "q", "completion": "a"}'] * 2 + ['{"text": "t"}'] * 3)
    reading = read(SourceConfig(path="a.jsonl"), folder=tmp_path)
    assert reading.formats == {"a.jsonl": "text (text in 5 of 5 rows)"}
    rows = rows_of(tmp_path, "a.jsonl", format="prompt_completion")
    assert [type(row).__name__ for row in rows] == ["Record", "Record", "Dropped", "Dropped", "Dropped"]
    with pytest.raises(DataError, match="no row is in the format `alpaca`"):
        rows_of(tmp_path, "a.jsonl", format="alpaca")


def test_unknown_layout_lists_the_keys_found_and_the_formats_known(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ['{"turns": 3, "id": 1}'])
    with pytest.raises(
        DataError, match=r"a\.jsonl.*Keys found: turns, id\. Known formats: messages .*alpaca.*question/answer.*text"
    ):
        rows_of(tmp_path, "a.jsonl")


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ("{not json", "malformed_json", "column 2"),
        ('{"messages": NaN}', "malformed_json", "NaN"),
        ('{"messages": -Infinity}', "malformed_json", "-Infinity"),
        ('{"a": ' + "9" * 5000 + "}", "malformed_json", "not valid JSON"),
        ("[" * 100_000, "malformed_json", "not valid JSON"),
        ('{"a": "\x00"}', "malformed_json", "control character"),
        ('["a"]', "not_an_object", "one object on each line"),
        ("3", "not_an_object", "int"),
        ('{"messages": [], "messages": [1]}', "duplicate_key", "`messages`"),
        (b'{"messages": "\xe9"}', "encoding", "0xe9"),
        (r'{"messages": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "a"}]}', "encoding", "U+D800"),
        ("{}", "missing_field", "`messages` is missing"),
        ('{"messages": "x"}', "wrong_type", "a string, not a list"),
        ('{"messages": []}', "no_assistant_turn", "no messages"),
        ('{"messages": ["x"]}', "wrong_type", "messages[0]"),
        ('{"messages": [{"role": "user"}]}', "missing_field", "no `content`"),
        (messages(("user", None), ("assistant", "a")), "wrong_type", "null"),
        (messages(("user", 3), ("assistant", "a")), "wrong_type", "a number"),
        (
            messages(("Bot", "x"), ("assistant", "a")),
            "unknown_role",
            "role `Bot` is unknown. Known: system, user, assistant, tool.",
        ),
        (messages((["x"], "x"), ("assistant", "a")), "unknown_role", "unknown"),
        (messages(("user", "x")), "no_assistant_turn", "ends with `user`. Nothing would be learned from it."),
        (messages(("user", " \n"), ("assistant", "a")), "empty_content", "messages[0]"),
        (messages(("user", "q"), ("assistant", "")), "empty_content", "messages[1]"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": -1}]}', "wrong_type", "weight is -1"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": true}]}', "wrong_type", "weight is True"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 1e999}]}', "malformed_json", "1e999 is too large"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 0}]}', "nothing_supervised", "weight 0"),
    ],
)
def test_bad_row_has_its_reason_and_its_line(tmp_path: Path, line: str | bytes, reason: str, detail: str) -> None:
    write(tmp_path / "a.jsonl", [GOOD, line])
    good, bad = rows_of(tmp_path, "a.jsonl")
    assert isinstance(good, Record)
    assert isinstance(bad, Dropped)
    assert (str(bad.source), bad.reason) == ("a.jsonl:2", reason)
    assert detail in bad.detail
    assert len(bad.detail) < 300
    json.dumps([bad.raw, bad.detail]).encode()


@pytest.mark.parametrize("written", ["4", "-1", "1.50", "1e3", "0"])
@pytest.mark.parametrize("keys", [("question", "answer"), ("instruction", "output")])
def test_an_answer_that_is_a_number_is_learned_as_it_is_written(tmp_path: Path, written: str, keys: tuple[str, str]) -> None:
    write(tmp_path / "a.jsonl", [f'{{"{keys[0]}": "q", "{keys[1]}": "a"}}', f'{{"{keys[0]}": "q", "{keys[1]}": {written}}}'])
    _, row = rows_of(tmp_path, "a.jsonl")
    assert isinstance(row, Record)
    assert [message.content for message in row.messages] == ["q", written]


@pytest.mark.parametrize("value", [1.5, True, 3])
def test_what_kind_a_value_is_does_not_tell_how_it_was_read(tmp_path: Path, value: object) -> None:
    write(tmp_path / "a.jsonl", ['{"question": "q", "answer": "a"}', json.dumps({"question": value, "answer": "a"})])
    _, bad = rows_of(tmp_path, "a.jsonl")
    assert isinstance(bad, Dropped)
    assert ("`question` is true or false" if value is True else "`question` is a number") in bad.detail


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q"}, "missing_field"),
        ({"question": "q", "answer": None}, "missing_field"),
        ({"question": "q", "answer": True}, "wrong_type"),
        ({"question": 3, "answer": "a"}, "wrong_type"),
        ({"question": "q", "answer": []}, "empty_content"),
        ({"question": " ", "answer": "a"}, "empty_content"),
    ],
)
def test_bad_pair_has_its_reason(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    write(tmp_path / "a.jsonl", ['{"question": "q", "answer": "a"}', json.dumps(row)])
    _, bad = rows_of(tmp_path, "a.jsonl")
    assert isinstance(bad, Dropped)
    assert bad.reason == reason


@pytest.mark.parametrize("label", [{"domain": "\ud800"}, {"group": "\udfff"}, {"tags": {"\ud800": "x"}}, {"licence": "\ud800"}])
def test_label_that_is_not_unicode_makes_its_row_bad(tmp_path: Path, label: dict[str, object]) -> None:
    write(tmp_path / "a.jsonl", [json.dumps({"prompt": "q", "completion": "a"} | label)])
    (bad,) = rows_of(tmp_path, "a.jsonl")
    assert isinstance(bad, Dropped)
    assert bad.reason == "encoding"


def test_utf8_mark_and_gzip_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n"))
    assert asked_and_answered(rows_of(tmp_path, "a.jsonl.gz")[0]) == ("q", "a")
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfquestion,answer\nq,a\n")
    assert asked_and_answered(rows_of(tmp_path, "a.csv")[0]) == ("q", "a")


def test_line_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [messages(("user", "x" * 10_000_000), ("assistant", "a")), "{" + "y" * 10_000_000])
    good, bad = rows_of(tmp_path, "a.jsonl")
    assert len(asked_and_answered(good)[0]) == 10_000_000
    assert isinstance(bad, Dropped)
    assert len(bad.raw) <= 2000


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_table_keeps_line_numbers_across_quoted_line_breaks(tmp_path: Path, name: str, delimiter: str) -> None:
    lines = ["question,answer", '"two', 'lines","a, ""quoted"" one"', "", "q,a", "only one", "a,b,c"]
    content = "\n".join(lines) if delimiter == "," else "\n".join(lines).replace("a, ", "a- ").replace(",", delimiter)
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    rows = rows_of(tmp_path, name)
    assert [row.source.line for row in rows] == [2, 5, 6, 7]
    comma = ", " if delimiter == "," else "- "
    assert asked_and_answered(rows[0]) == ("two\nlines", f'a{comma}"quoted" one')
    assert [row.reason for row in rows[2:] if isinstance(row, Dropped)] == ["too_few_columns", "too_many_columns"]


def test_table_with_a_bad_byte_or_an_open_quote_loses_only_those_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'question,answer\nq\xe9,a\nq,a\n"open,a\n')
    bad, good, unclosed = rows_of(tmp_path, "a.csv")
    assert asked_and_answered(good) == ("q", "a")
    assert isinstance(bad, Dropped)
    assert isinstance(unclosed, Dropped)
    assert (bad.reason, bad.source.line) == ("encoding", 2)
    assert "0xe9" in bad.detail
    assert (unclosed.reason, unclosed.source.line) == ("malformed_csv", 4)
    json.dumps(bad.raw).encode()


def test_header_must_name_each_column_once(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ["question,Question", "q,a"])
    with pytest.raises(DataError, match="each column"):
        rows_of(tmp_path, "a.csv")


def test_text_file_gives_blocks_of_whole_paragraphs(tmp_path: Path) -> None:
    long = "x" * 3000
    write(tmp_path / "a.txt", ["one", "still one", "", " ", "two", "", long, "", "last"])
    rows = [row for row in rows_of(tmp_path, "a.txt") if isinstance(row, Record)]
    assert [(row.source.line, row.text) for row in rows] == [(1, f"one\nstill one\n\ntwo\n\n{long}\n\nlast")]
    write(tmp_path / "b.txt", ["one", "", long, "", long, "", "y" * 9000, "", b"bad \xe9 byte"])
    blocks = rows_of(tmp_path, "b.txt")
    assert [row.source.line for row in blocks] == [1, 5, 7, 9]
    assert isinstance(blocks[3], Dropped)
    assert blocks[3].reason == "encoding"


def test_labels_of_a_row_go_before_those_of_its_source(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a"}
    own = {"domain": "returns", "group": 7, "licence": "MIT", "tags": {"fact": "f", "n": 3}}
    write(tmp_path / "a.jsonl", [json.dumps(row), json.dumps(row | own), json.dumps(row | {"tags": "BIL", "group": ""})])
    plain, labelled, odd = rows_of(tmp_path, "a.jsonl", domain="shop", licence="own")
    assert isinstance(plain, Record)
    assert isinstance(labelled, Record)
    assert isinstance(odd, Record)
    assert (plain.domain, plain.group, plain.licence, plain.tags) == ("shop", None, "own", {})
    assert (labelled.domain, labelled.group, labelled.licence, labelled.tags) == ("returns", "7", "MIT", {"fact": "f", "n": "3"})
    assert (odd.group, odd.tags) == (None, {})


def test_group_by_names_the_key_of_the_group_and_wants_it_in_every_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ['{"text": "t", "Story": "s1"}', '{"text": "t"}'])
    first, second = rows_of(tmp_path, "a.jsonl", group_by="Story")
    assert isinstance(first, Record)
    assert first.group == "s1"
    assert isinstance(second, Dropped)
    assert second.reason == "missing_field"
    assert "`Story`" in second.detail


@given(text=st.text(min_size=1, max_size=30).filter(str.strip), weight=st.floats(0, 4, exclude_min=True))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_id_is_that_of_the_content_alone(tmp_path: Path, text: str, weight: float) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text, "weight": weight}]
    write(
        tmp_path / "a.jsonl",
        [
            json.dumps({"messages": turns}),
            json.dumps({"domain": "d", "messages": turns, "group": "g"}, indent=None, ensure_ascii=False),
            json.dumps({"messages": [*turns[:1], turns[1] | {"weight": weight + 1}]}),
            json.dumps({"messages": [*turns[:1], turns[1] | {"content": text + "."}]}),
        ],
    )
    ids = [row.id for row in rows_of(tmp_path, "a.jsonl") if isinstance(row, Record)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_pattern_reads_each_file_in_order_with_its_own_format(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "b.jsonl", ['{"text": "b"}'])
    write(tmp_path / "sub" / "a.jsonl", [GOOD])
    reading = read(SourceConfig(path="sub/*.jsonl"), folder=tmp_path)
    assert list(reading.formats) == ["sub/a.jsonl", "sub/b.jsonl"]
    assert [str(row.source) for row in reading.rows] == ["sub/a.jsonl:1", "sub/b.jsonl:1"]
    absolute = read(SourceConfig(path=str(tmp_path / "sub" / "*.jsonl")), folder=tmp_path)
    assert absolute.formats == reading.formats


def test_place_of_an_absolute_path_names_no_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD])
    (row,) = rows_of(tmp_path / "elsewhere", str(path))
    assert str(row.source) == "a.jsonl:1"


@pytest.mark.parametrize(("path", "what"), [("no.jsonl", "no such file"), ("*.csv", "no file matches"), (".", "holds no file")])
def test_missing_source_names_its_path_and_the_recipe_key(tmp_path: Path, path: str, what: str) -> None:
    with pytest.raises(NotFound, match=what) as error:
        read(SourceConfig(path=path), folder=tmp_path)
    assert str(tmp_path) in str(error.value)
    assert f"data.sources[].path: {path!r}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.jsonl", b"\n\n", "is empty"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"question,answer\n", "is empty"),
        ("a.jsonl", b"[\n1,\n2]\n", "none of its first"),
        ("a.jsonl", "{}".encode("utf-16"), "no row is in a known format"),
        ("a.jsonl.gz", b"not gzip", "gzip"),
        ("a.jsonl.gz", gzip.compress(GOOD.encode() * 50)[:-9], "gzip"),
        ("a.parquet", b"PAR1", "not sound parquet"),
        ("a.xls", b"x", "are not read. Save the sheet as `CSV UTF-8`. Known"),
        ("noend", b"x", "no suffix"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=what) as error:
        rows_of(tmp_path, name)
    assert name in str(error.value)


@given(data=st.binary(max_size=200))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_crash_a_reader(tmp_path: Path, data: bytes) -> None:
    for name, first in (("a.jsonl", GOOD.encode()), ("a.csv", b"question,answer"), ("a.txt", b"text")):
        (tmp_path / name).write_bytes(first + b"\n" + data)
        try:
            rows = rows_of(tmp_path, name)
        except DataError:
            assert name == "a.csv"  # the only file that may hold no row
            continue
        assert all(isinstance(row, Record | Dropped) for row in rows)


def test_source_digests_follow_content(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [GOOD])
    config = DataConfig(sources=(SourceConfig(path="*.jsonl"),))
    before = source_digests(config, folder=tmp_path)
    assert list(before) == ["a.jsonl"]
    write(tmp_path / "a.jsonl", [GOOD, GOOD])
    assert source_digests(config, folder=tmp_path) != before


def test_reading_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", [GOOD] * 5000)
    decoded: list[int] = []
    from tunesmith.data.files import values

    original: Callable[..., object] = values._checked
    monkeypatch.setattr(values, "_checked", lambda *row: (decoded.append(1), original(*row))[1])
    rows = read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows
    next(rows)
    assert len(decoded) == 201  # 200 to detect the format, one to give


def test_tags_may_be_numbers(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "x", "tags": {"loss": 2.5, "rank": 3, "fact": "hours", "good": true, "more": []}}\n'
    )
    (row,) = read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows
    assert row.tags == {"loss": "2.5", "rank": "3", "fact": "hours"}


def test_where_reads_the_rows_that_are_asked_for_and_counts_the_others(tmp_path: Path) -> None:
    rows = [
        {"q": "one", "a": "1", "split": "train", "n": 1},
        {"q": "two", "a": "2", "split": "test", "n": 1},
        {"q": "three", "a": "3", "split": "dev", "n": True},
        {"q": "four", "a": "4"},
    ]
    write(tmp_path / "a.jsonl", map(json.dumps, rows))
    asked = {"map": {"question": "q", "answer": "a"}}
    found = rows_of(tmp_path, "a.jsonl", where={"Split": ["train", "dev"]}, **asked)
    assert [asked_and_answered(row)[0] for row in found if isinstance(row, Record)] == ["one", "three"]
    left_out = [row for row in found if isinstance(row, Dropped)]
    assert [str(row.source) for row in left_out] == ["a.jsonl:2", "a.jsonl:4"]
    assert {(row.reason, row.detail) for row in left_out} == {
        ("not_wanted", "it is not what `where` asks for: Split train or dev")
    }
    both = rows_of(tmp_path, "a.jsonl", where={"split": "train", "n": 1}, **asked)
    assert [asked_and_answered(row)[0] for row in both if isinstance(row, Record)] == ["one"]


def test_where_compares_the_spelling_so_that_a_table_of_strings_works_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer,year,ok\nq1,a1,2020,true\nq2,a2,2021,true\nq3,a3,2020,false\n")
    (kept,) = [row for row in rows_of(tmp_path, "a.csv", where={"year": 2020, "ok": True}) if isinstance(row, Record)]
    assert asked_and_answered(kept) == ("q1", "a1")


def test_rows_that_are_asked_for_may_begin_far_down(tmp_path: Path) -> None:
    lines = [json.dumps({"x": 1, "split": "a"})] * 300 + [json.dumps({"prompt": "p", "completion": "c", "split": "b"})] * 2
    write(tmp_path / "a.jsonl", lines)
    found = [row for row in rows_of(tmp_path, "a.jsonl", where={"split": "b"}) if isinstance(row, Record)]
    assert len(found) == 2
    with pytest.raises(DataError, match=r"a\.jsonl: no row is what data\.sources\[\]\.where asks for: split c"):
        rows_of(tmp_path, "a.jsonl", where={"split": "c"})


def test_an_instruction_stands_before_the_first_question_alone(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        [messages(("system", "s"), ("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2"))],
    )
    (row,) = rows_of(tmp_path, "a.jsonl", instruction="Do this:")
    assert isinstance(row, Record)
    assert [message.content for message in row.messages] == ["s", "Do this:\n\nu1", "a1", "u2", "a2"]
    write(tmp_path / "b.jsonl", [json.dumps({"text": "plain"})])
    (text,) = rows_of(tmp_path, "b.jsonl", instruction="Do this:")
    assert isinstance(text, Record)
    assert text.text == "plain"


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.csv", b"PK\x03\x04\x14\x00", r"is a zip, such as a workbook of Excel .*, and no \.csv as its name says"),
        ("a.txt", b"%PDF-1.7", r"is a PDF, and no \.txt"),
        ("a.jsonl", gzip.compress(b'{"question": "q", "answer": "a"}'), r"is packed by gzip, and no \.jsonl"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_told(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=what):
        read(SourceConfig(path=name), folder=tmp_path)


def test_linked_folders_are_read_once_and_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "more").mkdir(parents=True)
    (tmp_path / "all").mkdir()
    write(tmp_path / "elsewhere" / "more" / "b.jsonl", [GOOD])
    write(tmp_path / "all" / "a.jsonl", [GOOD])
    write(tmp_path / "all" / "~$a.docx", ["the mark of Word that the document is open"])
    (tmp_path / "all" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "all" / "lost.jsonl").symlink_to(tmp_path / "gone.jsonl")
    reading = read(SourceConfig(path="all"), folder=tmp_path)
    assert [row.source.path for row in reading.rows if isinstance(row, Record)] == ["all/a.jsonl", "all/linked/more/b.jsonl"]
    assert dict(reading.unread) == {"all/lost.jsonl": "the file cannot be read (No such file or directory)"}
    assert source_digests(DataConfig(sources=(SourceConfig(path="all"),)), folder=tmp_path)["all/lost.jsonl"] == ""
    assert collect([SourceConfig(path=str(tmp_path / "all"))], out=tmp_path / "out.jsonl").num_kept == 2
