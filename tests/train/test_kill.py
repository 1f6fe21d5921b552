"""Killed and resumed = never killed, bit for bit: one run ended by SIGKILL again and again, at random moments (`killing.py`).

The slow form kills each run a hundred times. It takes some minutes for each: `pytest -m slow tests/train/test_kill.py -k "lora and 0.1"`.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

RUNS = ["lora 0.0", "lora 0.1", "full 0.0", "full 0.1"]
FEW, MANY = 4, 100
SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]

Killed = Callable[[str, int], Path]
"""From a run and a number of kills to the folder with what was seen."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Few kills of all runs in one go, as most of it is the start; many of each run when it is asked for."""
    root, script = tmp_path_factory.mktemp("runs"), Path(__file__).with_name("killing.py")

    @cache
    def kill(kills: int, *runs: str) -> Path:
        subprocess.run([sys.executable, script, root / str(kills), "20240229", str(kills), *runs], check=True)
        return root / str(kills)

    return lambda run, kills: kill(kills, *(RUNS if kills == FEW else [run])) / run


def lives_of(folder: Path) -> list[dict[str, Any]]:
    lives: list[dict[str, Any]] = json.loads((folder / "killed" / "lives.json").read_bytes())
    return lives


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=SLOW)])
@pytest.mark.parametrize("run", RUNS)
def test_a_run_killed_at_random_moments_ends_in_the_bits_of_one_that_was_not(run: str, kills: int, killed: Killed) -> None:
    folder = killed(run, kills)
    lives = lives_of(folder)
    assert [life["end"] for life in lives] == [9] * kills + [0]
    reached = 0
    for life in lives:  # each went on from the newest checkpoint, and lost no committed one
        assert life["first"] in (reached + 1, None)
        assert life["newest"] >= reached
        reached = life["newest"]
    assert (folder / "killed" / "answer.json").read_bytes() == (folder / "whole" / "answer.json").read_bytes()


@pytest.mark.parametrize(
    ("kills", "runs"),
    [pytest.param(FEW, RUNS, id="all"), *(pytest.param(MANY, [run], id=run, marks=SLOW) for run in RUNS)],
)
def test_some_kills_met_a_write(kills: int, runs: list[str], killed: Killed) -> None:
    lives = [life for run in runs for life in lives_of(killed(run, kills))]
    assert sum(life["in_a_write"] for life in lives) > kills * len(runs) / 8
    assert {life["kind"] for life in lives} == {"clock", "write", "lives"}


def test_the_four_runs_differ(killed: Killed) -> None:
    answers = [json.loads((killed(run, FEW) / "whole" / "answer.json").read_bytes()) for run in RUNS]
    assert len({answer["digest"] for answer in answers}) == len(RUNS)
