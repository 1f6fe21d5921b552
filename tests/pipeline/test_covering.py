"""The coverage verdict on files: what cannot be read is counted and told, and nothing covers itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import DataError
from tunesmith.pipeline import cover_file
from tunesmith.pipeline.covering import cover_test
from tunesmith.records import Record, Source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"prompt": f"What does hat {i} cost?", "completion": f"It costs {i} euros."}) for i in range(5)]
    Path("rows.jsonl").write_text("\n".join([rows[0], "{broken", *rows[1:], '{"prompt": "Why?"}', "{broken"]) + "\n")
    Path("targets.jsonl").write_text('{"prompt": "What does hat 3 cost?"}\n')
    return tmp_path


def test_rows_that_cannot_be_read_are_counted_by_reason_with_their_places(folder: Path) -> None:
    found = cover_file(Path("rows.jsonl"), target=Path("targets.jsonl"))
    assert found.coverage.num_rows == 5
    assert found.unread == {"malformed_json": 2, "missing_field": 1}
    assert [example.split("  ")[0] for example in found.examples] == ["rows.jsonl:2", "rows.jsonl:7", "rows.jsonl:8"]
    arguments = ["data", "coverage", "rows.jsonl", "--target", "targets.jsonl"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "5 of 8 rows; 3 cannot be read (malformed_json 2, missing_field 1)" in " ".join(shown.stdout.split())
    assert "rows.jsonl:7" in shown.stdout
    plain = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (plain["num_rows"], plain["unread"], plain["skipped"]) == (5, dict(found.unread), [])


def test_a_clean_file_says_nothing_of_unread_rows(folder: Path) -> None:
    Path("rows.jsonl").write_text('{"prompt": "What does a hat cost?", "completion": "Five euros."}\n')
    shown = CliRunner().invoke(app, ["data", "coverage", "rows.jsonl", "--target", "targets.jsonl"])
    assert "cannot be read" not in shown.stdout


def test_files_of_a_folder_that_are_not_rows_are_named(folder: Path) -> None:
    Path("data").mkdir()
    Path("rows.jsonl").rename("data/rows.jsonl")
    Path("data/picture.png").write_bytes(b"\x89PNG")
    found = cover_file(Path("data"), target=Path("targets.jsonl"))
    assert len(found.skipped) == 1
    assert "picture.png" in found.skipped[0]


def test_a_file_is_not_its_own_target(folder: Path) -> None:
    Path("same.jsonl").symlink_to("targets.jsonl")
    with pytest.raises(DataError, match="its own target"):
        cover_file(Path("targets.jsonl"), target=Path("same.jsonl"))


def test_without_training_rows_or_test_rows_there_is_no_verdict() -> None:
    row = Record(id="1", source=Source(path="a.jsonl", line=1), text="a hat")
    assert cover_test([], test=[row]) is None
    assert cover_test([row], test=[]) is None
