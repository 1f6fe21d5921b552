"""A run that is long enough to be compiled. The test lowers what counts as long; all else is a run as a person makes it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.model.compiled import can_compile
from tunesmith.pipeline import stored_sheet
from tunesmith.store import Store

from .conftest import RECIPE, call, environment, rows, write_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_compile(), reason="there is no C++ compiler (g++, or what CXX names)"),
]
LONG = """
import math, os, signal, sys, time
from pathlib import Path
from tunesmith.train import compute, loop
compute._LONG_S, compute._PAYS, loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0, math.inf, 0.0
"""
DYING = """
from tunesmith.pipeline.training_log import TrainingLog
write = TrainingLog.write
def die(log, step):
    if step.step == 5:
        while not list(log._path.parent.glob("step-*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(log, step)
TrainingLog.write = die
"""
ADAPTER = "name: tiny\nbase: tunesmith/base\n" + RECIPE[RECIPE.index("data:") :].replace("method: full", "method: lora")


def run(folder: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", f"{script}\nfrom tunesmith.__main__ import main\nmain()", "run", "recipe.yaml"]
    env = {**environment(folder / "work"), "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "compiled"), **variables}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


def project(folder: Path, recipe: str = RECIPE) -> Path:
    folder.mkdir()
    write_rows(folder / "rows.jsonl", rows())
    (folder / "recipe.yaml").write_text(recipe.replace("epochs: 6", "epochs: 2"))
    return folder


def facts(folder: Path) -> dict[str, object]:
    (version,) = json.loads(call("models", "--json", workspace=folder / "work", cwd=folder).stdout)
    return {**version, **json.loads((Path(version["folder"]) / "tunesmith.json").read_bytes())}


@pytest.mark.parametrize("recipe", [RECIPE, ADAPTER], ids=["full", "adapter"])
def test_a_killed_run_stays_compiled_and_ends_in_the_same_bits(recipe: str, tmp_path: Path) -> None:
    whole, killed = project(tmp_path / "whole", recipe), project(tmp_path / "killed", recipe)
    done = run(whole, LONG)
    assert done.returncode == 0, done.stderr
    assert facts(whole)["is_compiled"] is True
    assert facts(whole)["proved"] is True
    store = Store(whole / "work")
    sheet = stored_sheet(store.ledger.version("tiny@1"), store=store)
    assert sheet is not None
    (compiled,) = (proof for proof in sheet.proofs if proof.name == "compiled = eager")
    assert compiled.holds is True

    assert run(killed, LONG + DYING).returncode == -signal.SIGKILL
    (decided,) = (killed / "work").rglob("compute.json")
    assert json.loads(decided.read_bytes())["is_compiled"] is True
    done = run(killed, "")  # by itself this run is far too short to be compiled
    assert done.returncode == 0, done.stderr
    assert facts(killed)["is_compiled"] is True
    assert facts(killed)["weights_digest"] == facts(whole)["weights_digest"]
    assert facts(killed)["curve"] == facts(whole)["curve"]


def test_a_compiler_that_fails_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    plain, failing = project(tmp_path / "plain"), project(tmp_path / "failing")
    assert run(plain, "").returncode == 0
    done = run(failing, LONG, CXX="/bin/false")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be compiled here") == 1
    assert "Training goes on without" in done.stderr
    assert "Traceback" not in done.stderr
    assert facts(failing)["is_compiled"] is False
    assert facts(failing)["weights_digest"] == facts(plain)["weights_digest"]


def test_who_insists_on_compiling_is_told_that_it_fails(tmp_path: Path) -> None:
    folder = project(tmp_path / "always", RECIPE.replace("patience: null", "patience: null, compute: {compile: always}"))
    done = run(folder, "", CXX="/bin/false")
    assert done.returncode == 2
    assert "cannot be compiled here" in done.stderr
    assert not list((folder / "work").rglob("compute.json")), "what could not be done is not remembered"
