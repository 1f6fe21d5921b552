import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tunesmith.data import SourceConfig, read
from tunesmith.data.files import RawRow, find_parts, unpack
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Record

ROW = b'{"text": "t"}\n'


def zipped(members: dict[str, bytes], **options: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", options.get("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(ROW) + gzip.compress(ROW)),
        ("a.jsonl.zst", zstandard.compress(ROW) + zstandard.compress(ROW)),
        (
            "a.zip",
            zipped({"x/one.jsonl": ROW, "two.jsonl.gz": gzip.compress(ROW), ".hidden.jsonl": ROW, "__MACOSX/one.jsonl": ROW}),
        ),
        ("a.jsonl.zip", zipped({"one.jsonl": ROW + ROW})),
    ],
)
def test_packed_rows_are_read(name: str, data: bytes, rows_in: Callable[..., list[RawRow]]) -> None:
    assert [row.content for row in rows_in(name, data)] == [{"text": "t"}] * 2


def test_member_is_named_with_its_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"x/one.jsonl": ROW, "notes.xyz": b"?"}))
    reading = read(SourceConfig(path="a.zip"), folder=tmp_path)
    assert [str(row.source) for row in reading.rows] == ["a.zip/x/one.jsonl:1"]
    assert reading.skipped == ("a.zip/notes.xyz",)


@pytest.mark.parametrize("member", ["../evil.jsonl", "/etc/evil.jsonl", "a/../../evil.jsonl", "..\\evil.jsonl", "C:/evil.jsonl"])
def test_name_that_leads_out_of_the_archive_is_refused_and_the_rest_read(member: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({member: ROW, "good.jsonl": ROW}))
    bad, good = read(SourceConfig(path="a.zip"), folder=tmp_path).rows
    assert isinstance(bad, Dropped)
    assert bad.reason == "unsafe_name"
    assert not isinstance(good, Dropped)


def test_encrypted_repeated_and_nested_members_are_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(dict.fromkeys(("a.jsonl", "A.jsonl", "b.jsonl", "c.zip"), ROW)).replace(b"A.jsonl", b"a.jsonl"))
    entry = data.index(b"b.jsonl", data.index(b"PK\x01\x02")) - 46
    data[entry + 8] |= 1  # the flag that says encrypted, in the archive's table
    (tmp_path / "a.zip").write_bytes(data)
    rows = list(read(SourceConfig(path="a.zip"), folder=tmp_path).rows)
    assert [row.reason for row in rows if isinstance(row, Dropped)] == ["repeated_name", "encrypted", "nested_archive"]
    assert len(rows) == 4


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
def test_bomb_is_refused_before_it_unfolds(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    name = f"a.jsonl.{'gz' if pack is gzip.compress else 'zst'}"
    (tmp_path / name).write_bytes(pack(b'{"text": "' + b"0" * 40_000_000 + b'"}'))
    with pytest.raises(DataError, match=rf"{name} unfolds to more than 250 times its size"):
        read(SourceConfig(path=name), folder=tmp_path)


def test_bomb_in_a_zip_is_refused_whether_or_not_it_tells_its_size(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.jsonl": b"0" * 40_000_000}))
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="unfolds to more than 250 times"):
        read(SourceConfig(path="a.zip"), folder=tmp_path)
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(DataError, match="not sound zip"):  # it ends after the hundred bytes that it admits
        list(read(SourceConfig(path="b.zip"), folder=tmp_path).rows)


def test_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_MAX_MEMBERS", 3)
    (tmp_path / "a.zip").write_bytes(zipped({f"{i}.jsonl": ROW for i in range(4)}))
    with pytest.raises(DataError, match="4 members"):
        find_parts("a.zip", folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(ROW * 9)[:-12]),
        ("a.jsonl.zst", zstandard.compress(json.dumps([*range(999)]).encode())[:-9]),
        ("a.zip", b"PK not a zip"),
        ("a.jsonl.zst", b"not zstd"),
    ],
)
def test_damaged_archive_is_one_clear_error(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: .*not sound"):
        list(read(SourceConfig(path=name), folder=tmp_path).rows)


def test_a_packed_file_that_breaks_off_is_told_before_its_rows_are_taken_also_where_its_encoding_is_named(tmp_path: Path) -> None:
    rows = "".join(f'{{"question": "{random.Random(i).random()}", "answer": "{i}"}}\n' for i in range(40_000))
    whole = gzip.compress(rows.encode())
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "all" / "good.jsonl").write_text(rows[: rows.index("\n")])
    reading = read(SourceConfig(path="all", encoding="utf-8"), folder=tmp_path)
    assert len([row for row in reading.rows if isinstance(row, Record)]) == 1
    (told,) = reading.unread.values()
    assert "is not sound gzip" in told
    num_readable = int(re.search(r"Its first ([\d,]+) bytes, unpacked, can be read", told)[1].replace(",", ""))
    assert 0 < num_readable < len(rows)


def test_a_broken_member_is_named_with_its_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in.jsonl", '{"question": "q", "answer": "a"}')
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b'"question": "q"', b'"question": "x"'))
    with pytest.raises(DataError, match=r"a\.zip/in\.jsonl: the file is not sound zip"):
        read(SourceConfig(path="a.zip"), folder=tmp_path)
