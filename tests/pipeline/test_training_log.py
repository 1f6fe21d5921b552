"""The log of a run: every step once, whatever was killed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from tunesmith.pipeline.training_log import TrainingLog, find_log, keep_log, read_log
from tunesmith.records import ModelVersion
from tunesmith.store import Store
from tunesmith.train import Step

FIRST = Step(
    step=1,
    total_steps=9,
    loss=1.5,
    step_loss=1.25,
    validation_loss=None,
    learning_rate=1e-3,
    grad_norm=0.5,
    num_tokens=2000,
    num_supervised=900,
    tokens_per_s=1234.56,
    memory_bytes=4096,
    elapsed_s=2.0,
    eta_s=16.0,
)


def steps(first: int, last: int) -> list[Step]:
    """A process that began at `first`: its clock starts there."""
    return [replace(FIRST, step=step, step_loss=1 / step, elapsed_s=2.0 * (step - first + 1)) for step in range(first, last + 1)]


def write(path: Path, session: list[Step]) -> list[list[dict[str, object]]]:
    with TrainingLog(path) as log:
        return [log.write(step) for step in session]


def test_a_line_holds_what_the_step_told(tmp_path: Path) -> None:
    write(tmp_path / "log", [replace(FIRST, validation_loss=1.75)])
    line = json.loads((tmp_path / "log").read_text())
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "step": 1,
        "loss": 1.25,
        "mean_loss": 1.5,
        "validation_loss": 1.75,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "tokens": 2000,
        "supervised_tokens": 900,
        "tokens_per_s": 1234.6,
        "memory_bytes": 4096,
        "elapsed_s": 2.0,
    }


def test_each_line_is_there_before_the_next_step(tmp_path: Path) -> None:
    with TrainingLog(tmp_path / "log") as log:
        for number, step in enumerate(steps(1, 3), start=1):
            log.write(step)
            assert len((tmp_path / "log").read_bytes().splitlines()) == number


@pytest.mark.parametrize("resumed_at", [1, 2, 4, 5])
@pytest.mark.parametrize("torn", [b"", b'{"step":5,"loss":0.', b"\n", b"[5]\n", b"\x00\x00"])
def test_a_run_that_goes_on_leaves_each_step_once(tmp_path: Path, resumed_at: int, torn: bytes) -> None:
    """Killed after step 4, with or without a half-written line, and resumed from any checkpoint."""
    path = tmp_path / "log"
    write(path, steps(1, 4))
    with path.open("ab") as file:
        file.write(torn)
    write(path, steps(resumed_at, 6))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == [1 / step for step in range(1, 7)]
    elapsed = [line["elapsed_s"] for line in lines]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] == 12.0  # the seconds of both processes, without those of the steps that were done twice


def test_the_first_step_of_a_run_tells_what_earlier_processes_left(tmp_path: Path) -> None:
    """So a tracker that was not there, or not in time, is told everything."""
    first = write(tmp_path / "log", steps(1, 3))
    again = write(tmp_path / "log", steps(3, 4))
    assert [[entry["step"] for entry in told] for told in first] == [[1], [2], [3]]
    assert [[entry["step"] for entry in told] for told in again] == [[1, 2, 3], [4]]


def test_a_reader_passes_over_a_half_written_line(tmp_path: Path) -> None:
    write(tmp_path / "log", steps(1, 2))
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"step":3,"lo')
    assert [entry["step"] for entry in read_log(tmp_path / "log")] == [1, 2]


def a_version(store: Store, *, name: str, artefact: str = "a" * 64, run: str = "r") -> ModelVersion:
    return store.ledger.register(
        ModelVersion(
            name=name, number=0, run=run, artefact=artefact, weights_digest="w", chat_digest="c", base_digest="b", created_at=""
        )
    )


def test_the_log_of_a_finished_run_lies_beside_its_version(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    job = store.job_folder("key")
    write(job / "train.jsonl", steps(1, 3))
    kept = keep_log(store, a_version(store, name="shop"), job=job)
    assert kept == store.root / "logs" / "shop@1" / "train.jsonl"
    assert kept.read_bytes() == (job / "train.jsonl").read_bytes()
    assert [path.name for path in kept.parent.iterdir()] == ["train.jsonl"]


def test_versions_of_one_training_share_its_log_and_others_have_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    job = store.job_folder("key")
    write(job / "train.jsonl", steps(1, 3))
    first = keep_log(store, a_version(store, name="shop"), job=job)
    (job / "train.jsonl").unlink()
    second = keep_log(store, a_version(store, name="other", run="evaluated otherwise"), job=job)
    assert first is not None
    assert second is not None
    assert second.read_bytes() == first.read_bytes()
    assert find_log(store, job=job, artefact="f" * 64) is None
    assert keep_log(store, a_version(store, name="old", artefact="f" * 64), job=job) is None
