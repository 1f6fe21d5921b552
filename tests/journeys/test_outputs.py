"""Commands that write files leave what they read as it is, and what they write apart."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import UserError


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, str]:
    """The content of every source below the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, about in (
        ("train.jsonl", "hats"),
        ("fd/train.jsonl", "coats"),
        ("fd/b.jsonl", "shoes"),
        ("fd/sub/c.jsonl", "socks"),
    ):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ({"question": f"{about} of size {n * 7919}?", "answer": f"{n * 31} {about} are there"} for n in range(30))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("good.csv").write_text("question,answer\nhow?,so\nwhy?,because\n")
    Path("o.dropped.jsonl").write_text(Path("train.jsonl").read_text())
    (tmp_path / "fd" / "link.jsonl").symlink_to(tmp_path / "train.jsonl")
    return {path: path.read_text() for path in Path().rglob("*") if path.is_file()}


def refusal(line: str) -> str:
    """The message of a command that is the user's mistake, which ends with exit code 2."""
    done = CliRunner().invoke(app, line.split())
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("data report good.csv --out good.csv", "good.csv"),
        ("data report train.jsonl --out r.html --json train.jsonl", "train.jsonl"),
        ("data report fd --out fd/b.jsonl", "fd/b.jsonl"),
        ("data split train.jsonl --out .", "train.jsonl"),
        ("data split fd --out fd", "fd/train.jsonl"),
        ("data read fd --out fd/train.jsonl", "fd/train.jsonl"),
        ("data read fd --out train.jsonl", "train.jsonl"),  # a link in the folder leads to it
        ("data read fd --out new.jsonl --dropped fd/sub/c.jsonl", "fd/sub/c.jsonl"),
        ("data read fd/*.jsonl --out fd/b.jsonl", "fd/b.jsonl"),
        ("data read o.dropped.jsonl --out o.jsonl", "o.dropped.jsonl"),  # where rows that cannot be used would go
        ("data clean fd --steps unicode --out fd/b.jsonl", "fd/b.jsonl"),
        ("data clean fd/*.jsonl --steps unicode --out new.jsonl --changes fd/b.jsonl", "fd/b.jsonl"),
        ("data validate fd --fix fd/b.jsonl", "fd/b.jsonl"),
        ("data annotate fd --out fd/b.jsonl --no-browser", "fd/b.jsonl"),
        ("data annotate fd --out new.jsonl --export rows fd/b.jsonl", "fd/b.jsonl"),
    ],
)
def test_no_command_writes_over_a_file_that_it_reads(rows: dict[Path, str], line: str, named: str) -> None:
    told = refusal(line)
    assert f": {named} is a file that is read" in told
    assert "never overwritten. Name another output" in told
    assert {path: path.read_text() for path in Path().rglob("*") if path.is_file()} == rows


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("data read good.csv --out o.jsonl --dropped o.jsonl", ("--out", "--dropped")),
        ("data read good.csv --out o.jsonl --dropped fd/../o.jsonl", ("--out", "--dropped")),
        ("data clean good.csv --steps unicode --out o.jsonl --dropped o.jsonl", ("--out", "--dropped")),
        ("data clean good.csv --steps unicode --out o.dropped.jsonl", ("--out", "--dropped")),
        ("data clean good.csv --steps unicode --out o.jsonl --dropped d.jsonl --changes d.jsonl", ("--dropped", "--changes")),
        ("data clean good.csv --steps unicode --out o.jsonl --changes o.jsonl", ("--out", "--changes")),
        ("data report good.csv --out r.html --json r.html", ("--out", "--json")),
        ("data annotate good.csv --out o.jsonl --export rows o.jsonl", ("--export", "--out")),
    ],
)
def test_two_outputs_are_two_files(rows: dict[Path, str], line: str, options: tuple[str, str]) -> None:
    assert refusal(line).startswith(f"{options[0]} and {options[1]} both name ")
    assert {path: path.read_text() for path in Path().rglob("*") if path.is_file()} == rows


def test_new_files_in_the_folder_that_is_read_are_no_sources_until_they_are_there(rows: dict[Path, str]) -> None:
    """A page beside its rows can be made again; rows beside rows would be read twice, and are refused then."""
    for _ in range(2):
        assert CliRunner().invoke(app, ["data", "report", "fd", "--out", "fd/report.html"]).exit_code == 0
    assert CliRunner().invoke(app, ["data", "read", "fd/*.jsonl", "--out", "fd/all.jsonl"]).exit_code == 0
    assert "fd/all.jsonl is a file that is read (it is among fd/*.jsonl)" in refusal("data read fd/*.jsonl --out fd/all.jsonl")
    assert all(path.read_text() == content for path, content in rows.items())


def test_devices_take_as_many_outputs_as_one_likes(rows: dict[Path, str]) -> None:
    words = [
        "data",
        "clean",
        "good.csv",
        "--steps",
        "unicode",
        "--out",
        "o.jsonl",
        "--dropped",
        "/dev/null",
        "--changes",
        "/dev/null",
    ]
    assert CliRunner().invoke(app, words).exit_code == 0


def test_files_of_a_folder_that_cannot_be_read_are_named_on_the_screen(rows: dict[Path, str]) -> None:
    Path("mixed").mkdir()
    Path("mixed/a.jsonl").write_text(Path("train.jsonl").read_text())
    packed = gzip.compress(Path("train.jsonl").read_bytes())
    Path("mixed/b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    Path("mixed/c.csv").write_text("Frage;Antwort\nWie?;So\n")
    for line in (
        "data read mixed --out o1.jsonl",
        "data clean mixed --steps unicode --out o2.jsonl",
        "data split mixed --out parts",
    ):
        done = CliRunner().invoke(app, line.split())
        assert done.exit_code == 0
        screen = " ".join(done.stdout.split())
        assert "unread mixed/b.jsonl.gz: the file is not sound gzip" in screen
        assert "mixed/c.csv: no row is in a known format. Keys found: frage, antwort." in screen
        told = json.loads(CliRunner().invoke(app, [*line.split(), "--json"]).stdout)
        assert list(told["unread_files"]) == ["mixed/b.jsonl.gz", "mixed/c.csv"]


@pytest.mark.parametrize(
    "command",
    [
        ["validate"],
        ["clean", "--steps", "unicode", "--out", "new.jsonl"],
        ["split", "--out", "new"],
        ["read", "--out", "new.jsonl"],
    ],
)
def test_a_file_of_no_known_kind_in_a_folder_is_named_by_every_command(rows: dict[Path, str], command: list[str]) -> None:
    Path("fd/prices.xlsx").write_bytes(b"a workbook")
    name, *options = command
    done = CliRunner().invoke(app, ["data", name, "fd", *options])
    assert done.exit_code == 0, done.output
    assert "fd/prices.xlsx" in done.output
