"""The fresh process of the proofs: it may be started first of all, works on what it is given, and outlives nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.train import fresh
from tunesmith.train.fresh import fresh_process

WORKS = """
import json, os, sys
from pathlib import Path
folder = Path(input())
(folder / "answer.json").write_text(json.dumps({**json.loads((folder / "task.json").read_bytes()), "pid": os.getpid()}))
"""
WAITS = "import os; from pathlib import Path; (Path(input()) / 'pid').write_text(str(os.getpid())); import time; time.sleep(600)"


def command(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(fresh, "COMMAND", (sys.executable, "-c", script))


def test_it_works_on_a_task_that_was_not_known_when_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, WORKS)
    with fresh_process() as ask:
        answer = ask(tmp_path, {"a": 1})
        assert answer() == answer()
        assert answer()["a"] == 1
        assert answer()["pid"] != os.getpid()


def test_it_does_not_outlive_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pid")
    command(monkeypatch, WAITS)
    with fresh_process() as ask:
        ask(tmp_path, {})
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_ends_by_itself_when_whoever_would_have_asked_is_gone() -> None:
    ended = subprocess.run(fresh.COMMAND, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_who_starts_it_has_loaded_no_torch() -> None:
    script = "import sys, tunesmith.train.fresh, tunesmith.pipeline.proving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
