from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import parquet

from tunesmith.data import SourceConfig, read, source_digests
from tunesmith.data.config import DataConfig
from tunesmith.data.files import find
from tunesmith.errors import DataError, MissingExtra, NotFound

ROW = b'{"text": "t"}\n'


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    files.store.clear()
    yield files
    files.store.clear()


def places(path: str, folder: Path) -> list[str]:
    return [str(row.source) for row in read(SourceConfig(path=path), folder=folder).rows]


def test_folder_is_read_with_all_below_it_hidden_files_left_out_and_unknown_kinds_named(tmp_path: Path) -> None:
    for name in ("d/a.jsonl", "d/sub/b.txt", "d/.hidden/c.jsonl", "d/.d.jsonl", "d/picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(ROW)
    reading = read(SourceConfig(path="d"), folder=tmp_path)
    assert [str(row.source) for row in reading.rows] == ["d/a.jsonl:1", "d/sub/b.txt:1"]
    assert reading.skipped == ("d/picture.png",)
    assert places(str(tmp_path / "d"), tmp_path / "elsewhere") == ["a.jsonl:1", "sub/b.txt:1"]


def test_file_of_a_folder_that_cannot_be_read_is_a_reason_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, data in (("a.jsonl", ROW), ("b.parquet", b"no"), ("c.jsonl", b'{"zzz": 1}'), ("e.csv", b"")):
        (tmp_path / "d" / name).write_bytes(data)
    reading = read(SourceConfig(path="d"), folder=tmp_path)
    assert [(row.source.path, row.reason) for row in reading.refused] == [
        ("d/b.parquet", "unreadable_file"),
        ("d/c.jsonl", "unreadable_file"),
        ("d/e.csv", "empty_file"),
    ]
    assert len(list(reading.rows)) == 4
    assert list(reading.unread) == ["d/b.parquet", "d/c.jsonl"]  # in an empty file nothing is lost
    assert reading.unread["d/c.jsonl"].startswith("no row is in a known format. Keys found: zzz. ")
    with pytest.raises(DataError, match=r"c\.jsonl"):
        read(SourceConfig(path="d/*.jsonl"), folder=tmp_path)


def test_urls_name_files_folders_and_patterns(tmp_path: Path, memory: MemoryFileSystem) -> None:
    for name in ("/d/a.jsonl", "/d/sub/b.jsonl", "/d/.hidden.jsonl"):
        memory.pipe(name, ROW)
    assert places("memory://d/a.jsonl", tmp_path) == ["memory://d/a.jsonl:1"]
    assert places("memory://d", tmp_path) == ["memory:///d/a.jsonl:1", "memory:///d/sub/b.jsonl:1"]
    assert places("memory://d/*.jsonl", tmp_path)[-1] == "memory:///d/a.jsonl:1"
    (tmp_path / "a.jsonl").write_bytes(ROW)
    assert places(f"file://{tmp_path}/a.jsonl", tmp_path) == ["a.jsonl:1"]
    config = DataConfig(sources=(SourceConfig(path="memory://d/a.jsonl"), SourceConfig(path="a.jsonl")))
    assert len(set(source_digests(config, folder=tmp_path).values())) == 1


@pytest.mark.parametrize(
    ("url", "error"), [("memory://none.jsonl", NotFound), ("nosuch://a.jsonl", DataError), ("hf://lonely", NotFound)]
)
def test_url_that_leads_nowhere_is_one_clear_error(url: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match=url.replace("/", "[/]")):
        read(SourceConfig(path=url), folder=tmp_path)


def test_file_system_that_is_not_installed_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.core

    def missing(_url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtra, match="Install s3fs"):
        read(SourceConfig(path="s3://bucket/a.jsonl"), folder=tmp_path)


def hub_with(memory: MemoryFileSystem, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in files.items():
        memory.pipe(f"/datasets/{name}", data)
    monkeypatch.setattr(find, "_hub", lambda: memory)


def test_data_set_of_the_hub_is_read_from_its_parquet(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = pa.BufferOutputStream()
    parquet.write_table(pa.table({"question": ["q"], "answer": ["a"]}), held)
    data = held.getvalue().to_pybytes()
    base = "own/set@refs%2Fconvert%2Fparquet/default"
    hub_with(memory, {f"{base}/train/0000.parquet": data, f"{base}/test/0000.parquet": data}, monkeypatch)
    assert len(places("hf://own/set", tmp_path)) == 2
    assert places("hf://own/set/test", tmp_path) == ["hf://own/set/default/test/0000.parquet:1"]
    with pytest.raises(NotFound, match="no split `dev`"):
        places("hf://own/set/dev", tmp_path)


def test_named_revision_and_sets_without_parquet_are_read_from_their_files(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_with(memory, {"own/set/train.jsonl": ROW, "own/set/README.md": b"x", "own/set@v1/data/test-0.jsonl": ROW}, monkeypatch)
    assert len(places("hf://own/set", tmp_path)) == 1
    assert len(places("hf://own/set@v1/test", tmp_path)) == 1
    with pytest.raises(NotFound, match="no such data set"):
        places("hf://own/other", tmp_path)


def test_hub_that_cannot_be_reached_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        def find(self, _root: str) -> None:
            raise ConnectionError("no route to host")

    monkeypatch.setattr(find, "_hub", Offline)
    with pytest.raises(DataError, match=r"hf://own/set cannot be reached .*no route"):
        read(SourceConfig(path="hf://own/set"), folder=tmp_path)
