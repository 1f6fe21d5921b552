import errno
import gzip
import json
import os
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.data import SourceConfig, read
from tunesmith.data.collect import collect, sources_of
from tunesmith.data.rows import plain_record
from tunesmith.errors import DataError, OutOfSpace, UserError
from tunesmith.records import Record

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
turns = st.lists(texts, min_size=1, max_size=3)
labels = st.fixed_dictionaries(
    {},
    optional={"domain": texts, "group": texts, "licence": texts, "tags": st.dictionaries(texts, texts, max_size=2)},
)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, object]:
    row: dict[str, object] = dict(draw(labels))
    if draw(st.booleans()):
        return row | {"text": draw(texts)} | draw(st.fixed_dictionaries({}, optional={"label": texts}))
    spoken = [
        turn for text in draw(turns) for turn in ({"role": "user", "content": text}, {"role": "assistant", "content": text + "!"})
    ]
    spoken[-1] |= draw(st.fixed_dictionaries({}, optional={"weight": st.floats(0.1, 2)}))
    rejected = st.just([{"role": "assistant", "content": "no"}])
    more = draw(st.fixed_dictionaries({}, optional={"rejected": rejected, "tools": st.just([{"name": "f"}])}))
    return row | {"messages": spoken} | more


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def records(folder: Path, name: str) -> list[Record]:
    found = list(read(SourceConfig(path=name), folder=folder).rows)
    assert all(isinstance(row, Record) for row in found), found
    return found  # type: ignore[return-value]


@given(given_rows=st.lists(rows(), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_written_and_read_again_are_the_same_at_the_same_place(given_rows: list[dict[str, object]], tmp_path: Path) -> None:
    for i, row in enumerate(given_rows):
        (tmp_path / f"{i}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    first = [record for i in range(len(given_rows)) for record in records(tmp_path, f"{i}.jsonl")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(plain_record(record)) + "\n" for record in first), encoding="utf-8")
    assert records(tmp_path, "rows.jsonl") == first


def test_every_row_is_kept_or_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("q,a\nwhy,so\nwhy\n")
    Path("b.txt").write_text("text")
    found = collect([*sources_of(["a.csv"], names=["question=q,answer=a"]), *sources_of(["b.txt"])], out=Path("out/rows.jsonl"))
    assert (found.num_read, found.num_kept, found.dropped) == (3, 2, {"too_few_columns": 1})
    assert found.examples == ("a.csv:3  1 columns where the header has 2: why",)
    kept = [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]
    assert [row["source"] for row in kept] == ["a.csv:2", "b.txt:1"]
    assert kept[1]["text"] == "text"
    (left_out,) = map(json.loads, Path("out/rows.dropped.jsonl").read_text().splitlines())
    assert (left_out["source"], left_out["reason"], left_out["raw"]) == ("a.csv:3", "too_few_columns", "why")


def test_no_file_of_rows_left_out_where_none_is_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b.txt").write_text("text")
    Path("rows.dropped.jsonl").write_text("of an earlier run")
    assert collect(sources_of(["b.txt"]), out=Path("rows.jsonl")).dropped_path is None
    assert files_in(tmp_path) == ["b.txt", "rows.jsonl"]


def test_nothing_is_written_where_no_row_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": " "}\n')
    Path("rows.jsonl").write_text("of an earlier run")
    with pytest.raises(DataError, match=r"a\.jsonl:1 .*is empty\nnot one row"):
        collect(sources_of(["a.jsonl"]), out=Path("rows.jsonl"))
    assert Path("rows.jsonl").read_text() == "of an earlier run"
    assert files_in(tmp_path) == ["a.jsonl", "rows.jsonl"]


def test_full_disk_is_one_error_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.txt").write_text("text")

    def full(_file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match=r"no space left for .*rows"):
        collect(sources_of([str(tmp_path / "b.txt")]), out=tmp_path / "rows.jsonl")
    assert files_in(tmp_path) == ["b.txt"]


def test_a_source_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "kept"}\n')
    for targets in ({"out": Path("./a.jsonl")}, {"out": Path("rows.jsonl"), "dropped": Path("a.jsonl")}):
        with pytest.raises(UserError, match="never overwritten"):
            collect(sources_of(["a.jsonl"]), **targets)
    assert Path("a.jsonl").read_text() == '{"text": "kept"}\n'
    assert files_in(tmp_path) == ["a.jsonl"]


def test_rows_are_compressed_where_their_name_says_so(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("text")
    collect(sources_of([str(tmp_path / "b.txt")]), out=tmp_path / "rows.jsonl.gz")
    assert json.loads(gzip.decompress((tmp_path / "rows.jsonl.gz").read_bytes()))["text"] == "text"


@pytest.mark.parametrize(
    ("options", "what"),
    [({"names": ["q"]}, "NAME=KEY"), ({"names": ["frage=q"]}, "`frage` is not a name"), ({"encoding": "hex"}, "no encoding")],
)
def test_odd_option_is_one_clear_error(options: dict[str, list[str]], what: str) -> None:
    with pytest.raises(DataError, match=what):
        sources_of(["a.jsonl"], **options)
