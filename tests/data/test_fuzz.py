"""Any bytes give rows or reasons: real small files of every kind, broken at random, never end in a traceback."""

import gzip
import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tests.data.files.test_documents import pdf_of
from tests.data.files.test_unpack import zipped

from tunesmith.data import SourceConfig, read
from tunesmith.errors import UserError
from tunesmith.records import Dropped, Record

TURNS = [{"role": "user", "content": "Öffnet ihr?"}, {"role": "assistant", "content": "Ja, täglich.", "weight": 0.5}]
LINES = "\n".join(
    json.dumps(row, ensure_ascii=False) for row in [{"messages": TURNS, "tags": {"a": "b"}}, {"messages": TURNS, "group": 3}] * 3
)
PAIR = {"prompt": "q", "chosen": "\n\nHuman: x\n\nAssistant: y", "rejected": [TURNS[1]], "tools": '[{"name": "f"}]'}
SHARED = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}
NESTED = [
    {"prompt": {"role": "prompter", "text": "q", "replies": [{"role": "assistant", "text": "a", "rank": 0, "replies": []}] * 2}},
    {"instruction": "i", "instances": [{"input": "x", "output": "a"}]},
    {"document": "d", "questions": [{"question": "q", "answers": ["a"]}]},
    {"paragraphs": [{"context": "c", "qas": [{"question": "q", "answer": "a"}]}]},
    {"shown": "user: q\nassistant: None\ntool: 1\nassistant: a", "log": [["user", "q"], ["agent", "a"]]},
]
TABLE = "question,answer,label\n" + 'why,"because, of ""it""\nall",1\n' * 5


def word_document() -> bytes:
    docx = pytest.importorskip("docx")
    document, held = docx.Document(), io.BytesIO()
    document.add_paragraph("Some text.")
    document.save(held)
    return held.getvalue()


def parquet_table() -> bytes:
    held = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": ["a", "b"], "label": [1, None]}), held)
    return bytes(held.getvalue().to_pybytes())


def samples() -> dict[str, bytes]:
    pytest.importorskip("pypdf")
    return {
        "a.jsonl": LINES.encode(),
        "b.jsonl": json.dumps(PAIR).encode() + b"\n" + json.dumps(PAIR).encode(),
        "a.ndjson": json.dumps(SHARED).encode(),
        "a.json": json.dumps([SHARED, {"turns": TURNS}], indent=1).encode(),
        "c.jsonl": "\n".join(map(json.dumps, NESTED)).encode(),
        "b.json": json.dumps({"data": [{"context": "c", "question": "q", "answers": {"text": ["a"]}}]}).encode(),
        "c.json": json.dumps({"text": ["a", "b"], "label": [1, 2]}).encode(),
        "a.csv": TABLE.encode(),
        "b.csv": TABLE.replace("why", "Я не знаю почему").encode("cp1251"),
        "a.tsv": TABLE.replace(",", "\t").encode("utf-16"),
        "a.txt": "Ein Satz. Noch einer.\n\nAbsatz.".encode("utf-32"),
        "a.md": b"---\ntitle: x\n---\n# Head\n\ntext",
        "a.html": b"<html><head><meta charset=latin-1></head><body><p>Text &amp; text.</p></body></html>",
        "a.pdf": pdf_of(["Hello", ""]),
        "a.docx": word_document(),
        "a.parquet": parquet_table(),
        "a.jsonl.gz": gzip.compress(LINES.encode()),
        "a.csv.zst": zstandard.compress(TABLE.encode()),
        "a.zip": zipped({"a.jsonl": LINES.encode(), "d/b.csv.gz": gzip.compress(TABLE.encode())}),
        "b.zip": zipped({"a.txt": b"text", "b.parquet": parquet_table()}, compression=zipfile.ZIP_STORED),
    }


def broken(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with a few changes of the kinds that damage, carelessness and malice make."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed) + 1)
        length = chance.choice((1, 1, 2, 8, 50))
        match chance.randrange(6):
            case 0:
                changed[at : at + length] = chance.randbytes(length)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[chance.randrange(len(changed) + 1) :][:length]
            case 3:
                changed[at:at] = chance.choice(
                    (b'"', b"\x00", b"\n", b"{", b"]", b"\xff\xfe", b"\xef\xbb\xbf", b"\\u", b"1e999", b"null", b",")
                )
            case 4:
                changed = changed[:at]
            case _:
                changed[at : at + length] = bytes(byte ^ 1 << chance.randrange(8) for byte in changed[at : at + length])
        changed = changed or bytearray(b" ")
    return bytes(changed)


def check(name: str, data: bytes, folder: Path) -> None:
    """Every row is a record or a reason that can be written, or the file as a whole is refused in a sentence."""
    (folder / name).write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries that read broken documents complain of them
            rows = list(read(SourceConfig(path=name), folder=folder).rows)
    except UserError:
        return
    for row in rows:
        assert isinstance(row, Record | Dropped)
        assert row.source.line >= 1
        if isinstance(row, Dropped):
            assert row.reason
            assert row.detail
            json.dumps([row.raw, row.detail, row.source.path], ensure_ascii=False).encode()


def mutate(folder: Path, *, number: int, seed: int) -> None:
    chance = random.Random(seed)
    files = samples()
    for i in range(number):
        name = list(files)[i % len(files)]
        data = broken(files[name], chance)
        try:
            check(name, data, folder)
        except BaseException as error:
            kept = folder / f"broken.{name}"
            kept.write_bytes(data)
            error.add_note(f"change {i} of seed {seed}: {name}, kept as {kept}")
            raise


def test_some_hundred_broken_files_give_rows_or_reasons(tmp_path: Path) -> None:
    mutate(tmp_path, number=len(samples()) * 15, seed=1)


@pytest.mark.slow
def test_ten_thousand_broken_files_give_rows_or_reasons(tmp_path: Path) -> None:
    mutate(tmp_path, number=10_000, seed=2)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt", ".md", ".parquet", ".jsonl.gz", ".csv.zst", ".zip"])
def test_any_bytes_give_rows_or_reasons(suffix: str, tmp_path: Path) -> None:
    @given(data=st.binary(max_size=120))
    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def soup(data: bytes) -> None:
        check(f"a{suffix}", data, tmp_path)

    run: Callable[[], None] = soup
    run()


def test_the_unbroken_files_are_all_read(tmp_path: Path) -> None:
    for name, data in samples().items():
        (tmp_path / name).write_bytes(data)
        if name == "a.html":
            pytest.importorskip("trafilatura", exc_type=ImportError)
        assert any(isinstance(row, Record) for row in read(SourceConfig(path=name), folder=tmp_path).rows), name
