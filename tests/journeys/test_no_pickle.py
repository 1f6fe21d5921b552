"""What tunesmith writes holds no pickle, in the eyes of tools that look for them: a run, its checkpoints, saved models and adapters."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import command, environment

fickling = pytest.importorskip("fickling.fickle", reason="fickling is a development dependency")


def pickles_in(folder: Path) -> list[Path]:
    """Files that fickling can read as a pickle, from their first byte or as a member of a torch or zip file."""
    from fickling.polyglot import identify_pytorch_file_format

    found = []
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.is_symlink():
            continue
        with file.open("rb") as stream:
            stacked = _parsed(stream)
        if stacked or identify_pytorch_file_format(str(file)):
            found.append(file)
    return found


def _parsed(stream: object) -> bool:
    try:
        opcodes = list(fickling.Pickled.load(stream))
    except Exception:  # what is no pickle fails in many kinds
        return False
    return len(opcodes) > 1 and opcodes[-1].info.name == "STOP"


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a run writes, a whole model saved anew, an adapter, a soft prompt and a checkpoint."""
    import torch

    from tunesmith.model import add_lora, add_soft_prompt, load_model, save_model, this_machine
    from tunesmith.train.checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("written")
    shutil.copytree(finished / "work", folder / "work")
    (version,) = [path.parent for path in (folder / "work" / "artefacts").glob("*/model.safetensors")]
    machine = this_machine()
    for name in ("whole", "adapter", "prompt"):
        (folder / name).mkdir()
    save_model(load_model(version, machine=machine), folder / "whole", base_path=None)
    save_model(add_lora(load_model(version, machine=machine), rank=2, alpha=4, seed=0), folder / "adapter", base_path=version)
    save_model(add_soft_prompt(load_model(version, machine=machine), tokens=[5, 6]), folder / "prompt", base_path=version)
    write_checkpoint(folder / "checkpoints", step=1, state={"rng": [1, 2]}, tensors={"exp_avg": torch.zeros(3)})
    return folder


def test_the_tool_finds_a_pickle_where_there_is_one(tmp_path: Path) -> None:
    for protocol in range(6):
        (tmp_path / f"{protocol}.json").write_bytes(pickle.dumps({"a": os.getcwd}, protocol=protocol))
    (tmp_path / "plain.json").write_text('{"a": 1}')
    assert [file.name for file in pickles_in(tmp_path)] == [f"{protocol}.json" for protocol in range(6)]


def test_nothing_that_is_written_is_a_pickle(written: Path) -> None:
    files = [file for file in written.rglob("*") if file.is_file()]
    assert len([file for file in files if file.suffix == ".safetensors"]) >= 5
    assert pickles_in(written) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_modelscan_finds_nothing_in_what_is_written(written: Path) -> None:
    tool = os.environ.get("TUNESMITH_MODELSCAN")
    if tool is None:
        pytest.skip(
            "TUNESMITH_MODELSCAN names no modelscan: pip install it in an environment of its own, and set the variable to its path"
        )
    done = subprocess.run([tool, "-p", str(written)], capture_output=True, text=True, check=False)
    assert "No issues found" in done.stdout, done.stdout + done.stderr
    (written / "evil.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    spoiled = subprocess.run([tool, "-p", str(written)], capture_output=True, text=True, check=False)
    (written / "evil.pkl").unlink()
    assert spoiled.returncode == 1, spoiled.stdout  # so it does look


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_a_run_leaves_while_it_trains_is_no_pickle(project: Path) -> None:
    """A run that is killed leaves its checkpoints: optimiser, random numbers and place in the data."""
    import signal
    import time

    process = subprocess.Popen(command("run", "recipe.yaml"), cwd=project, env=environment(project / "work"))
    deadline = time.monotonic() + 240
    while not list((project / "work" / "jobs").glob("*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pickles_in(project / "work") == []
