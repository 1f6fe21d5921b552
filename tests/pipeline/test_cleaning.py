import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.data.clean.names import name_finder
from tunesmith.errors import MissingExtra, RecipeError, UserError
from tunesmith.pipeline import clean_rows


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "I am ann@example.com"}, {"role": "assistant", "content": "Hello  Ann"}]
    good = json.dumps({"messages": turns, "domain": "shop"})
    path.write_text("\n".join([good, "{broken", good]) + "\n")
    return path


def test_kept_rows_keep_shape_and_source_and_the_others_say_why(rows: Path, tmp_path: Path) -> None:
    out, dropped, changes = (tmp_path / name for name in ("clean.jsonl", "dropped.jsonl", "changes.jsonl"))
    cleaned = clean_rows([str(rows)], steps="whitespace,pii, exact_duplicates", out=out, dropped=dropped, changes=changes)
    (kept,) = lines(out)
    assert [turn["content"] for turn in kept["messages"]] == ["I am [EMAIL_1]", "Hello Ann"]  # type: ignore[attr-defined]
    assert (kept["source"], kept["domain"]) == ("chats.jsonl:1", "shop")
    assert [(row["reason"], row["source"]) for row in lines(dropped)] == [
        ("malformed_json", "chats.jsonl:2"),
        ("exact_duplicate", "chats.jsonl:3"),
    ]
    assert all(row["detail"] and row["raw"] for row in lines(dropped))
    assert [(row["step"], row["source"]) for row in lines(changes)] == [
        (step, f"chats.jsonl:{line}") for line in (1, 3) for step in ("whitespace", "pii")
    ]
    account = cleaned.as_json()
    assert (account["num_read"], account["num_kept"], account["num_dropped"], account["unread"]) == (
        3,
        1,
        2,
        {"malformed_json": 1},
    )
    assert [(s["step"], s["num_in"], s["num_out"], s["num_changed"]) for s in account["steps"]] == [
        ("whitespace", 2, 2, 2),
        ("pii", 2, 2, 2),
        ("exact_duplicates", 2, 1, 0),
    ]
    json.dumps(account)


def test_settings_are_written_as_in_a_recipe(rows: Path, tmp_path: Path) -> None:
    clean_rows([str(rows)], steps="{pii: {types: [phone]}}", out=tmp_path / "clean.jsonl")
    assert "ann@example.com" in (tmp_path / "clean.jsonl").read_text()
    assert (tmp_path / "clean.dropped.jsonl").is_file()


def test_a_misspelt_step_is_told_and_nothing_is_written(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean whitespace"):
        clean_rows([str(rows)], steps="whitspace", out=tmp_path / "clean.jsonl")
    assert list(tmp_path.iterdir()) == [rows]


def test_a_source_is_never_overwritten(rows: Path) -> None:
    before = rows.read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        clean_rows([str(rows)], steps="pii", out=rows)
    assert rows.read_bytes() == before


def test_what_pii_does_not_cover_is_said(rows: Path, tmp_path: Path) -> None:
    arguments = ["data", "clean", str(rows), "--out", str(tmp_path / "clean.jsonl"), "--steps"]
    shown = CliRunner().invoke(app, [*arguments, "pii"])
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    assert "names, places, ages and street addresses are not covered" in words
    assert "pip install 'tunesmith[presidio]'" in words
    (note,) = json.loads(CliRunner().invoke(app, [*arguments, "pii", "--json"]).stdout)["notes"]
    assert "names, places, ages and street addresses are not covered" in note
    assert "covered" not in CliRunner().invoke(app, [*arguments, "whitespace"]).stdout


def test_names_without_the_extra_are_refused_with_the_command_that_installs_it(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[name_finder.__module__], "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"presidio, which is not installed.*pip install 'tunesmith\[presidio\]'"):
        clean_rows([str(rows)], steps="{pii: {names: true}}", out=tmp_path / "clean.jsonl")
    assert not (tmp_path / "clean.jsonl").exists()


def test_steps_that_are_empty_are_refused_with_those_there_are(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--steps is empty\. Name steps, in their order: unicode, "):
        clean_rows([str(rows)], steps=" ", out=tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()


def test_a_missing_file_of_tests_is_not_called_a_source(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file \(decontaminate\.against: 'nowhere\.jsonl'"):
        clean_rows([str(rows)], steps="{decontaminate: {against: [nowhere.jsonl]}}", out=tmp_path / "kept.jsonl")
