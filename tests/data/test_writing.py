"""Outputs are whole or absent: real limits, real kills."""

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from tunesmith.data.writing import check_outputs, open_outputs, open_rows
from tunesmith.errors import OutOfSpace, UserError


def script(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    head = "import os, resource, signal, sys\nfrom pathlib import Path\nfrom tunesmith.data.writing import open_rows\n"
    return subprocess.run(
        [sys.executable, "-c", head + text, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def test_rows_are_written_as_they_are_and_compressed_by_the_suffix(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        with open_rows(tmp_path / "new" / name) as rows:
            rows.write({"a": "é", "b": 1})
            rows.write(b'{"as": "it stands"}')
        assert rows.num_rows == 2
    expected = '{"a":"é","b":1}\n{"as": "it stands"}\n'.encode()
    assert (tmp_path / "new" / "a.jsonl").read_bytes() == expected
    assert gzip.decompress((tmp_path / "new" / "b.jsonl.gz").read_bytes()) == expected
    assert zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "new" / "c.jsonl.zst").read_bytes()) == expected


def test_what_orjson_cannot_write_is_written_all_the_same(tmp_path: Path) -> None:
    row = {"half": "\ud83d", "big": 10**30}
    with open_rows(tmp_path / "a.jsonl") as rows:
        rows.write(row)
    assert json.loads((tmp_path / "a.jsonl").read_text()) == row


def write_and_raise(out: Path, error: type[BaseException]) -> None:
    with open_rows(out) as rows:
        rows.write({"a": 1})
        raise error


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    out = tmp_path / f"a.jsonl{suffix}"
    out.write_text("before")
    with pytest.raises(error):
        write_and_raise(out, error)
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_gives_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = script(
        "from tunesmith.errors import OutOfSpace\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n"
        "    with open_rows(Path(sys.argv[1])) as rows:\n"
        "        for _ in range(int(sys.argv[2])): rows.write({'text': 'x' * 1000})\n"
        "except OutOfSpace as error: print('refused:', error)\n",
        tmp_path / "a.jsonl",
        100,
    )
    assert done.stdout.startswith(f"refused: no space left for {tmp_path / 'a.jsonl'}. Nothing half-written is kept; free some")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_none_of_several_files_whichever_was_too_large(tmp_path: Path) -> None:
    for large in (0, 1):
        done = script(
            "from tunesmith.errors import OutOfSpace\nfrom tunesmith.data.writing import open_outputs\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "try:\n"
            "    with open_outputs(Path(sys.argv[1], 'a'), Path(sys.argv[1], 'b')) as files:\n"
            "        files[int(sys.argv[2])].write(bytes(60_000))\n"
            "except OutOfSpace as error: print('refused')\n",
            tmp_path,
            large,
        )
        assert (done.stdout, done.stderr) == ("refused\n", "")
        assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_straight_through() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OutOfSpace), open_rows(Path("/dev/full")) as rows:
        rows.write({"a": 1})
    with open_rows(Path("/dev/null")) as rows:
        rows.write({"a": 1})
    assert Path("/dev/null").is_char_device()


def test_what_a_killed_process_left_is_removed_by_the_next_and_other_files_are_not(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    done = script(
        "with open_rows(Path(sys.argv[1])) as rows:\n"
        "    for _ in range(9999): rows.write({'text': 'x' * 1000})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        out,
    )
    assert done.returncode == -signal.SIGKILL
    (part,) = tmp_path.iterdir()
    assert part.name.endswith(".part")
    for name in (".a.jsonl.gz.0123456789ab.part", ".a.jsonl.part", "a.jsonl.0123456789ab.part"):
        (tmp_path / name).touch()
    with open_rows(out):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.jsonl",
        ".a.jsonl.gz.0123456789ab.part",
        ".a.jsonl.part",
        "a.jsonl.0123456789ab.part",
    }


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with open_rows(out) as first:
        first.write({"by": "first"})
        with open_rows(out) as second:
            second.write({"by": "second"})
        assert json.loads(out.read_text()) == {"by": "second"}
    assert json.loads(out.read_text()) == {"by": "first"}


def test_files_that_belong_together_appear_together_the_first_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[list[str]] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        names.append(sorted(path.name for path in tmp_path.iterdir() if path.name[0] != "."))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    with open_outputs(tmp_path / "chief", tmp_path / "beside") as (chief, beside):
        chief.write(b"1")
        beside.write(b"2")
    assert names == [[], ["beside"]]
    assert ((tmp_path / "chief").read_bytes(), (tmp_path / "beside").read_bytes()) == (b"1", b"2")


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "a", "is not a folder")):
        with pytest.raises(UserError, match=words), open_outputs(path):
            pass


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "there" / "rows.jsonl")
    with open_rows(tmp_path / "link.jsonl") as rows:
        rows.write({"a": 1})
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "there" / "rows.jsonl").read_text() == '{"a":1}\n'


def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.touch()
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for name in ("a.jsonl", "soft", "hard", "x/../a.jsonl"):
        with pytest.raises(UserError, match="never overwritten"):
            check_outputs([("--out", tmp_path / name)], sources=[source])
    check_outputs([("--out", tmp_path / "b.jsonl")], sources=[source])
