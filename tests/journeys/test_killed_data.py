"""A run that is killed while it reads and cleans goes on to the very rows of one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from tunesmith.data import freeze
from tunesmith.pipeline import load_recipe
from tunesmith.store import Store

from .conftest import RECIPE, call, command, environment, write_rows

KILLED_AFTER = (0.15, 0.4, 0.75)
"""Shares of the time that the data stage takes, the earliest first: a machine that is suddenly fast finishes before the last."""


def begin(project: Path, workspace: Path) -> subprocess.Popen[str] | None:
    """Start a run, and return once it has begun to read the sources; None where an earlier one has finished that."""
    process = subprocess.Popen(
        command("run", "recipe.yaml"),
        cwd=project,
        env=environment(workspace),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "reading the sources" in line:
            return process
    process.communicate()
    assert process.returncode == 0, "".join(said)
    return None


def test_a_run_killed_in_the_data_stage_ends_in_the_same_snapshot(tmp_path: Path) -> None:
    """Many rows are read and cleaned, of which few are trained on: the data stage is most of the run."""
    write_rows(
        tmp_path / "rows.jsonl",
        [
            {"prompt": f"Whose is  parcel {i}?", "completion": f"Parcel {i} is of customer{i % 7000}@example.com."}
            for i in range(9000)
        ],
    )
    recipe = RECIPE.replace("{path: rows.jsonl}", "{path: rows.jsonl, limit: 60}").replace("test: 0.2", "test: 0")
    recipe = recipe.replace("  split:", "  clean: [unicode, whitespace, secrets, pii, exact_duplicates]\n  split:")
    recipe = recipe.replace("epochs: 6", "max_steps: 1")
    (tmp_path / "recipe.yaml").write_text(recipe)

    loaded, whole = load_recipe(tmp_path / "recipe.yaml"), Store(tmp_path / "whole")
    started = time.monotonic()
    expected = freeze(loaded.recipe.data, folder=tmp_path, store=whole).id
    seconds = time.monotonic() - started

    workspace = tmp_path / "killed"
    num_within = 0
    for share in KILLED_AFTER:
        if (process := begin(tmp_path, workspace)) is None:
            break
        time.sleep(share * seconds)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        num_within += "● data" not in said
    assert num_within

    done = call("run", "recipe.yaml", workspace=workspace, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (version,) = json.loads(call("models", "--json", workspace=workspace, cwd=tmp_path).stdout)
    facts = json.loads((workspace / "artefacts" / version["artefact"] / "tunesmith.json").read_text())
    assert facts["snapshot"] == expected
    rows = [path.read_bytes() for path in sorted((tmp_path / "whole" / "artefacts" / expected).iterdir())]
    assert [path.read_bytes() for path in sorted((workspace / "artefacts" / expected).iterdir())] == rows
    assert call("doctor", "--repair", workspace=workspace, cwd=tmp_path).returncode in (0, 1)
    assert call("doctor", workspace=workspace, cwd=tmp_path).returncode == 0
