"""Every hostile base of the table stops `run` and `prove` with exit code 2 and one plain message; `chat` knows versions alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.__main__ import main

from ..model.hostile import HOSTILE, spoiled_folder
from .conftest import RECIPE, command, environment, rows, write_rows

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process: its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNESMITH_WORKSPACE", str(tmp_path / "work"))

    def called(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tunesmith", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return called


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", HOSTILE)
def test_run_refuses_a_hostile_base(name: str, tmp_path: Path, call: Call) -> None:
    spoiled_folder(name, tmp_path)
    write_rows(tmp_path / "rows.jsonl", rows()[:10])
    recipe = re.sub(r"base: \{.*\}", "base: base", RECIPE)
    (tmp_path / "recipe.yaml").write_text(recipe)
    code, said = call("run", "recipe.yaml")
    assert code == 2, said
    assert re.search(HOSTILE[name][1], said), said
    assert "Traceback" not in said
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "work").glob("artefacts/*/model.safetensors"))


@pytest.mark.parametrize("name", ["a pickle of protocol 0 by its content", "auto_map in config.json", "a pipe as its weights"])
def test_prove_and_chat_refuse_a_hostile_folder(name: str, tmp_path: Path, call: Call) -> None:
    spoiled_folder(name, tmp_path)
    code, said = call("prove", "./base")
    assert code == 2
    assert re.search(HOSTILE[name][1], said)
    code, said = call("chat", "./base", "Hello?")
    assert code == 2
    assert "base" in said


def test_the_command_as_people_start_it_refuses_a_pickle(tmp_path: Path) -> None:
    spoiled_folder("a pickle as the weights", tmp_path)
    done = subprocess.run(
        command("prove", "base"), cwd=tmp_path, env=environment(tmp_path / "work"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "damaged or cut short" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.lexists(tmp_path / "ran")
