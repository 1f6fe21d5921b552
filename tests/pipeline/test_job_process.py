"""What a job's process writes down of how its run ended."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.errors import DataError, Interrupted, NotFound
from tunesmith.pipeline import job_process
from tunesmith.pipeline.job_process import run_job
from tunesmith.pipeline.proving import Sheet
from tunesmith.records import Proof
from tunesmith.store import Store
from tunesmith.store.jobs import Job, JobEvent, Jobs


def ended(folder: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[[Jobs, Job], Any]) -> Job:
    """A claimed job whose run is `run`, after its process."""
    jobs = Jobs(Store(folder / "work").ledger)
    made = jobs.create({}, event=JobEvent(message="made"))
    jobs.move(made, to="queued", event=JobEvent(message="queued"))
    claimed = jobs.claim(host="here", max_running=1)
    assert claimed is not None
    monkeypatch.setattr(job_process, "_run", lambda job, *, jobs, **_: run(jobs, job))
    run_job(Store(folder / "work"), claimed.id)
    return jobs.find(claimed.id)


def raising(error: Exception) -> Callable[[Jobs, Job], Any]:
    def run(_jobs: Jobs, _job: Job) -> Any:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "param", "message"),
    [
        (DataError("rows are bad: /data/shop/rows.jsonl"), "invalid_training_file", "training_file", "rows are bad: …"),
        (NotFound("no such base"), "job_failed", None, "no such base"),
        (FloatingPointError("the loss became nan"), "training_diverged", None, "the loss became nan"),
        (KeyError("secret"), "server_error", None, "The job failed for a reason of ours; its log on the server has it."),
    ],
)
def test_a_run_that_fails_says_why_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, param: str | None, message: str
) -> None:
    job = ended(tmp_path, monkeypatch, raising(error))
    assert (job.state, job.outcome["error"]) == ("failed", {"code": code, "message": message, "param": param})


def test_an_interrupted_job_is_queued_again_as_if_it_had_never_been_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended(tmp_path, monkeypatch, raising(Interrupted("Interrupted at step 3")))
    assert (job.state, job.attempts) == ("queued", 0)


@pytest.mark.parametrize("state", ["cancelled", "paused"])
def test_what_was_asked_of_a_job_outlives_how_its_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    def stopped_and(error: Exception | None) -> Callable[[Jobs, Job], Any]:
        def run(jobs: Jobs, job: Job) -> Any:
            jobs.move(job, to=state, event=JobEvent(message=state))
            if error is not None:
                raise error
            return SimpleNamespace(sheet=SimpleNamespace(holds=True))

        return run

    monkeypatch.setattr(job_process, "_outcome", lambda _, **__: {"fine_tuned_model": "a@1"})
    for number, error in enumerate((Interrupted("stop"), NotFound("gone"), None)):
        job = ended(tmp_path / str(number), monkeypatch, stopped_and(error))
        assert (job.state, job.outcome) == (state, {})


def test_a_version_of_which_a_proof_fails_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = Proof(name="reloaded", meaning="What was saved is what was trained.", compared="4 probes", holds=False)
    sheet = Sheet(subject="a@1", model="0", machine="here", proofs=(proof,))
    finished = SimpleNamespace(sheet=sheet, version=SimpleNamespace(ref="a@1"))
    job = ended(tmp_path, monkeypatch, lambda _jobs, _job: finished)
    assert (job.state, job.outcome["error"]["code"]) == ("failed", "proof_failed")
    assert "reloaded" in job.outcome["error"]["message"]
    assert "fine_tuned_model" not in job.outcome


def test_a_job_that_was_stopped_before_its_process_began_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs(Store(tmp_path / "work").ledger)
    made = jobs.create({}, event=JobEvent(message="made"))
    monkeypatch.setattr(job_process, "_run", raising(AssertionError("was run")))
    run_job(Store(tmp_path / "work"), made.id)
    assert jobs.find(made.id) == made
