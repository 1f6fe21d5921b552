"""Killed and resumed = never killed, bit for bit: one run ended by SIGKILL again and again, at random moments (`killing.py`)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = ["lora 0.0", "lora 0.1", "full 0.0", "full 0.1"]
KILLS = pytest.mark.parametrize(
    "kills", [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def runs(kills: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    subprocess.run([sys.executable, Path(__file__).with_name("killing.py"), root, "20240229", str(kills)], check=True)
    return root


@KILLS
@pytest.mark.parametrize("run", RUNS)
def test_a_run_killed_at_random_moments_ends_in_the_bits_of_one_that_was_not(run: str, kills: int, runs: Path) -> None:
    whole, killed = ((runs / run / name / "answer.json").read_bytes() for name in ("whole", "killed"))
    lives = json.loads((runs / run / "killed" / "lives.json").read_bytes())
    assert [life["end"] for life in lives] == [9] * kills + [0]
    reached = 0
    for life in lives:  # each went on from the newest checkpoint, and lost no committed one
        assert life["first"] in (reached + 1, None)
        assert life["newest"] >= reached
        reached = life["newest"]
    assert killed == whole


@KILLS
def test_some_kills_met_a_write_and_the_four_runs_differ(kills: int, runs: Path) -> None:
    lives = [life for run in RUNS for life in json.loads((runs / run / "killed" / "lives.json").read_bytes())]
    assert sum(life["in_a_write"] for life in lives) > kills / 2
    assert {life["kind"] for life in lives} == {"clock", "write", "lives"}
    assert len({json.loads((runs / run / "whole" / "answer.json").read_bytes())["digest"] for run in RUNS}) == 4
