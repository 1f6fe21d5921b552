"""`tunesmith data validate` as a person runs it: exit codes, streams, the screen and the files."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import call, command, environment

SOUND = {"messages": [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Yes, until six."}]}
BOT = {"messages": [{"role": "user", "content": "Open?"}, {"role": "Bot", "content": "Yes, until six."}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [SOUND, BOT, SOUND | {"id": 3}, [1, 2]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sound.jsonl").write_text((json.dumps(SOUND) + "\n") * 3)
    return tmp_path


def validate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call("data", "validate", *arguments, workspace=folder / "work", cwd=folder)


def test_clean_files_end_in_0_and_bad_ones_in_3_with_the_share_and_the_gate(folder: Path) -> None:
    clean = validate(folder, "sound.jsonl")
    assert (clean.returncode, clean.stderr) == (0, "")
    assert "Clean: nothing was found." in clean.stdout
    refused = validate(folder, "rows.jsonl")
    assert refused.returncode == 3
    assert refused.stderr == "Refused: 2 of 4 rows are bad (50 %, the gate is 1 %). Mend them, or raise --max-bad-share.\n"
    assert validate(folder, "rows.jsonl", "--max-bad-share", "0.5").returncode == 0


def test_the_screen_groups_findings_with_place_reason_mend_and_what_next(folder: Path) -> None:
    screen = validate(folder, "rows.jsonl").stdout
    assert "unrecognized_role   1 · --fix mends it" in screen
    assert "rows.jsonl:2  role `Bot` is unknown. Known: system, user, assistant, tool." in screen
    assert "rows.jsonl:4  the line is a list, not an object." in screen
    assert "tunesmith data validate rows.jsonl --fix fixed.jsonl" in screen
    assert all(len(line) <= 110 for line in screen.splitlines())
    assert "\x1b" not in screen


def test_json_is_all_that_stdout_holds_and_says_what_was_written(folder: Path) -> None:
    done = validate(folder, "rows.jsonl", "--json", "--fix", "fixed.jsonl")
    found = json.loads(done.stdout)
    assert done.returncode == 3  # one row of four had to be left out
    assert found["fix"] == {
        "out": "fixed.jsonl",
        "changes": "fixed.changes.jsonl",
        "rejected": "fixed.rejected.jsonl",
        "num_written": 3,
        "num_changed": 1,
        "num_rejected": 1,
    }
    first = found["findings"][0]
    assert (first["source"], first["code"], first["value"], first["fixable"]) == (
        "rows.jsonl:2",
        "unrecognized_role",
        "Bot",
        True,
    )
    assert [json.loads(line) for line in (folder / "fixed.jsonl").read_text().splitlines()] == [SOUND, SOUND, SOUND | {"id": 3}]
    assert validate(folder, "fixed.jsonl").returncode == 0


def test_the_embedded_base_counts_tokens(folder: Path) -> None:
    done = validate(folder, "sound.jsonl", "--base", "tunesmith/base", "--max-tokens", "5", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["num_over_token_limit"], found["warnings"]) == (0, 3, {"over_token_limit": 3})
    tokens, learned = found["lengths"]["tokens_per_row"], found["lengths"]["learned_tokens_per_row"]
    assert 5 < learned["min"] < tokens["min"] == tokens["max"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent.jsonl",), "no such file"),
        (("rows.jsonl", "--format", "novel"), "--format: 'novel' is unknown. Known: auto, "),
        (("rows.jsonl", "--for", "nobody"), "Known: openai, mistral"),
        (("rows.jsonl", "--fix", "rows.jsonl"), "a source is never overwritten"),
        (("rows.jsonl", "--base", "nowhere"), "nowhere"),
        (("work.bin",), "no such file"),
    ],
)
def test_input_that_cannot_be_used_ends_in_2_with_one_message(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    done = validate(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_no_half_written_copy_and_the_same_command_goes_through(folder: Path, number: signal.Signals) -> None:
    source = folder / "many.jsonl"
    source.write_text("".join(json.dumps(SOUND | {"id": i}) + "\n" for i in range(100_000)))
    arguments = command("data", "validate", "many.jsonl", "--fix", "fixed.jsonl")
    process = subprocess.Popen(
        arguments, cwd=folder, env=environment(folder / "work"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not any(part.stat().st_size for part in folder.glob(".fixed.jsonl.*.part")):  # it writes, and has far to go
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == (130 if number is signal.SIGINT else -number)
    assert "Traceback" not in told
    assert list(folder.glob("fixed*")) == []
    assert bool(list(folder.glob(".fixed*"))) == (number is signal.SIGKILL)
    assert validate(folder, "many.jsonl", "--fix", "fixed.jsonl").returncode == 0
    assert list(folder.glob(".fixed*")) == []
    assert len((folder / "fixed.jsonl").read_text().splitlines()) == 100_000
