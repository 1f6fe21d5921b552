"""Everything that people get wrong: one clear message with place and mend, exit code 2, and the store as it was."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import RECIPE, Cli, call, command, environment, rows, write_rows


def fingerprint(workspace: Path) -> dict[str, str]:
    """Every finished file of a store. Quarantine and logs may grow; artefacts and ledger may not."""
    files = [*(workspace / "artefacts").rglob("*"), workspace / "ledger.db"]
    return {
        str(file.relative_to(workspace)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(files)
        if file.is_file()
    }


def refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr


@pytest.fixture
def used(project: Path, finished: Path) -> Path:
    """A project whose store already holds something worth keeping."""
    shutil.copytree(finished / "work", project / "work")
    return project


BAD_ROWS = {
    "malformed JSON": ('{"messages": [', "rows.jsonl:7"),
    "missing field": ('{"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]}', "rows.jsonl:7"),
    "wrong role": ('{"messages": [{"role": "Bot", "content": "a"}, {"role": "assistant", "content": "b"}]}', "role `Bot`"),
    "no assistant turn": ('{"messages": [{"role": "user", "content": "a"}]}', "Nothing would be learned"),
    "not an object": ("[1, 2]", "rows.jsonl:7"),
    "wrong type": ('{"messages": "hello"}', "rows.jsonl:7"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_past_the_gate_is_named_with_file_and_line(name: str, used: Path, cli: Cli) -> None:
    bad, expected = BAD_ROWS[name]
    lines = [json.dumps(row) for row in rows()]
    lines[6] = bad
    (used / "rows.jsonl").write_text("\n".join(lines) + "\n")
    before = fingerprint(used / "work")
    refused(cli("run", "recipe.yaml"), "rows.jsonl:7", expected)
    assert fingerprint(used / "work") == before


def test_a_bad_row_within_the_gate_is_set_aside_and_counted(project: Path, cli: Cli) -> None:
    lines = [json.dumps(row) for row in rows()]
    lines[6] = '{"messages": ['
    (project / "rows.jsonl").write_text("\n".join(lines) + "\n")
    checked = json.loads(cli("check", "recipe.yaml", "--set", "data.max_bad_share=0.05", "--json").stdout)
    assert checked["rows"]["dropped"] == {"malformed_json": 1}
    assert checked["rows"]["kept"] == 95


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("epochs: 6", "epochz: 6"), ["recipe.yaml", "line", "epochz", "Did you mean `epochs`?"]),
        (("epochs: 6", "epochs: many"), ["line", "epochs", "many"]),
        (("test: 0.2", "test: 20"), ["line", "20 is not a share", "0.2"]),
        (("rows.jsonl", "rowz.jsonl"), ["rowz.jsonl", "data.sources"]),
        (("base: {vocab_size: 400", "base: {vocab_sise: 400"), ["vocab_sise", "vocab_size"]),
        (("method: full", "method: lora"), ["method: full"]),
        (("promote: always", "promote: sometimes"), ["promote", "sometimes"]),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_key_and_the_mend(
    change: tuple[str, str], expected: list[str], used: Path, cli: Cli
) -> None:
    (used / "recipe.yaml").write_text(RECIPE.replace(*change))
    before = fingerprint(used / "work")
    refused(cli("run", "recipe.yaml"), *expected)
    assert fingerprint(used / "work") == before


def test_all_errors_of_a_recipe_are_told_at_once(project: Path, cli: Cli) -> None:
    (project / "recipe.yaml").write_text(RECIPE.replace("epochs: 6", "epochz: 6").replace("test: 0.2", "test: 20"))
    refused(cli("check", "recipe.yaml"), "2 errors", "epochz", "20 is not a share")


def test_a_missing_recipe_and_a_missing_model_are_said_plainly(used: Path, cli: Cli) -> None:
    refused(cli("run", "recip.yaml"), "recip.yaml", "recipe.yaml")
    refused(cli("chat", "tinny", "hello"), "tinny", "tiny")
    refused(cli("chat", "tiny@9", "hello"), "tiny@9")


def test_an_empty_file_is_refused(used: Path, cli: Cli) -> None:
    (used / "rows.jsonl").write_text("")
    refused(cli("run", "recipe.yaml"), "rows.jsonl", "empty")


def test_a_base_folder_with_a_pickle_is_refused_by_name(used: Path, cli: Cli, finished: Path) -> None:
    (version,) = json.loads(call("models", "--json", workspace=finished / "work", cwd=finished).stdout)
    base = used / "base"
    shutil.copytree(finished / "work" / "artefacts" / version["artefact"], base)
    base.chmod(0o755)
    (base / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": 1}))
    old = next(line for line in RECIPE.splitlines() if line.startswith("base:"))
    (used / "recipe.yaml").write_text(RECIPE.replace(old, "base: base"))
    before = fingerprint(used / "work")
    refused(cli("run", "recipe.yaml"), "pytorch_model.bin", "safetensors")
    assert fingerprint(used / "work") == before


def test_too_few_rows_to_split_are_refused(project: Path, cli: Cli) -> None:
    write_rows(project / "rows.jsonl", rows()[:2])
    refused(cli("run", "recipe.yaml"), "split")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_no_disk_space_is_said_and_leaves_the_store_sound(project: Path, finished: Path) -> None:
    disk = project / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.strip()}")
    try:
        refused(call("run", "recipe.yaml", workspace=disk / "work", cwd=project), "no space left")
        sound = subprocess.run(
            command("doctor", "--json"), cwd=project, env=environment(disk / "work"), capture_output=True, text=True, check=False
        )
        assert not [f for f in json.loads(sound.stdout)["findings"] if f["kind"] in ("broken", "missing", "ledger")]
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_message_that_shows_a_row_sends_nothing_to_the_terminal_that_it_would_obey(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "q", "answer": {"\\u001b]0;owned\\u0007": "\\u001b[2J"}}\n' * 3 + "\x1b[31m{broken\n"
    )
    done = call("data", "read", "rows.jsonl", "--out", "out.jsonl", workspace=tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 2
    assert "rows.jsonl:4" in done.stderr
    assert not [letter for letter in done.stdout + done.stderr if letter != "\n" and not letter.isprintable()]
