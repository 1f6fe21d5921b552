"""A fine-tuning job in a process of its own: started, found again, asked to stop; and what it does in there.

The process holds a lock on its job's folder from before it begins until it is gone, however it ends. So a server that starts anew knows
which jobs live, and a process id is believed only while its lock is held.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.errors import DataError, GateRefused, Interrupted, TunesmithError
from tunesmith.pipeline.progress import Silent
from tunesmith.store import Store, files_of
from tunesmith.store.folders import make_folder
from tunesmith.store.jobs import Job, JobEvent, Jobs

if TYPE_CHECKING:
    from tunesmith.pipeline.running import Finished
    from tunesmith.train import Step

__all__ = ["ask_to_stop", "is_alive", "job_folder", "run_job", "start_job"]

_COMMAND = (sys.executable, "-m", "tunesmith.pipeline.job_process")
_LOCK, _LOG = "lock", "log.txt"
_PATIENCE_S = 60.0
"""So long a job that goes on waits for its former process to be gone."""
_PATH = re.compile(r"(?<![\w/:])(?:[\\/][\w.@+-]+){2,}")
_MAX_MESSAGE = 1000
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""By process id; asked now and then, so that none stays a zombie."""


def job_folder(store: Store, id_: str) -> Path:
    """Where a job keeps its recipe, its rows, its lock and what it printed."""
    return store.tuning / id_


def is_alive(folder: Path) -> bool:
    """Whether a process works in a job's folder."""
    for pid, child in list(_CHILDREN.items()):
        if child.poll() is not None:
            _CHILDREN.pop(pid, None)
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def start_job(store: Store, job: Job, *, command: Sequence[str] = _COMMAND) -> None:
    """Start a job's process, in a session of its own: neither Ctrl-C at the server nor the server's end reaches it.

    Args:
        store: the workspace.
        job: was claimed.
        command: what to run; it is given the workspace, the job's id and the descriptor of its lock.

    Raises:
        TunesmithError: a former process of the job does not end.
    """
    folder = make_folder(job_folder(store, job.id))
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, folder=folder)
        with (folder / _LOG).open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(store.root), job.id, str(descriptor)],
                pass_fds=(descriptor,),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _CHILDREN[child.pid] = child
    finally:
        os.close(descriptor)  # the child has it too, and so the lock


def ask_to_stop(folder: Path) -> None:
    """Ask a job's process to save a checkpoint and end; nothing happens where none lives."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int((folder / _LOCK).read_bytes())
        if is_alive(folder):
            os.kill(pid, signal.SIGTERM)


def run_job(store: Store, id_: str) -> None:
    """Do a job that was claimed, and write down what came of it; whoever watches declares it succeeded."""
    jobs = Jobs(store.ledger)
    job = jobs.find(id_)
    if job.state != "running":  # cancelled or paused between its start and here
        return
    try:
        finished = _run(job, store=store, jobs=jobs)
    except Interrupted:
        # Who cancels or pauses a job has said so in the ledger; else the machine goes down, and the job goes on when it is up again.
        with suppress(GateRefused):
            jobs.move(job, to="queued", event=JobEvent(message="The job was interrupted at a checkpoint"), attempts=0)
    except (TunesmithError, FloatingPointError) as error:
        _fail(jobs, job, error)
    except Exception as error:
        logging.getLogger("tunesmith").exception("job %s failed", id_)
        _fail(jobs, job, error)
    else:
        if finished.sheet.holds:
            jobs.record(job, outcome=_outcome(finished, store=store))
            return
        message = f"{finished.version.ref} was trained, but its proofs do not hold ({finished.sheet.objection})"
        _end_failed(jobs, job, code="proof_failed", message=message)


def _run(job: Job, *, store: Store, jobs: Jobs) -> Finished:
    from tunesmith.pipeline.job_recipe import write_recipe
    from tunesmith.pipeline.recipe import load_recipe
    from tunesmith.pipeline.running import run
    from tunesmith.pipeline.stopping import interruptible

    with interruptible():
        recipe = write_recipe(job_folder(store, job.id), job.request, store=store)
        return run(load_recipe(recipe), store=store, watcher=_Telling(jobs, job))


def _outcome(finished: Finished, *, store: Store) -> dict[str, Any]:
    from tunesmith.pipeline.versions import MODEL_FACTS

    facts = orjson.loads((files_of(finished.version, store=store).path / MODEL_FACTS).read_bytes())
    best = next((point for point in facts["curve"] if point[0] == facts["best_step"]), None)
    metrics = {"step": facts["best_step"]}
    if best is not None:
        metrics |= {name: value for name, value in zip(("train_loss", "valid_loss"), best[1:], strict=True) if value is not None}
    return {
        "fine_tuned_model": finished.version.ref,
        "trained_tokens": sum(passed["tokens"] for passed in (finished.sources or {}).values()),
        "checkpoints": [{"step_number": facts["best_step"], "created_at": int(time.time()), "metrics": metrics}],
    }


def _fail(jobs: Jobs, job: Job, error: Exception) -> None:
    if isinstance(error, DataError):
        _end_failed(jobs, job, code="invalid_training_file", message=str(error), param="training_file")
    elif isinstance(error, FloatingPointError):
        _end_failed(jobs, job, code="training_diverged", message=str(error))
    elif isinstance(error, TunesmithError):
        _end_failed(jobs, job, code="job_failed", message=str(error))
    else:
        _end_failed(jobs, job, code="server_error", message="The job failed for a reason of ours; its log on the server has it.")


def _end_failed(jobs: Jobs, job: Job, *, code: str, message: str, param: str | None = None) -> None:
    told = _without_paths(message)
    with suppress(GateRefused):  # cancelled in the meantime
        error = {"code": code, "message": told, "param": param}
        jobs.move(job, to="failed", event=JobEvent(message=told, level="error"), outcome={"error": error})


def _without_paths(text: str) -> str:
    return _PATH.sub("…", text)[:_MAX_MESSAGE]


def _lock(descriptor: int, *, folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TunesmithError(f"a former process of this job does not end ({folder})") from None
            time.sleep(0.1)
        else:
            return


class _Telling(Silent):
    """Turns what a run says into the job's events."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._jobs = jobs
        self._job = job
        told = (event.data.get("step", 0) for event in jobs.events(job.id))
        self._told_up_to = max(told, default=0)  # a job that goes on makes some steps again

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:  # noqa: ARG002 - the protocol's
        if name in {"data", "train", "prove"} and not is_cached:
            self._jobs.tell(self._job.id, *(JobEvent(message=_without_paths(line)) for line in lines))

    def step(self, step: Step) -> None:
        share = max(1, step.total_steps // 20)
        is_measured = step.validation_loss is not None
        is_due = is_measured or step.step % share == 0 or step.step in {1, step.total_steps}
        if step.step <= self._told_up_to or not is_due:
            return
        data: dict[str, Any] = {"step": step.step, "total_steps": step.total_steps, "train_loss": step.loss}
        message = f"Step {step.step}/{step.total_steps}: training loss={step.loss:.2f}"
        if is_measured:
            data["valid_loss"] = step.validation_loss
            message += f", validation loss={step.validation_loss:.2f}"
        self._jobs.tell(self._job.id, JobEvent(message=message, data=data))
        self._jobs.record(self._job, outcome={"estimated_finish": int(time.time() + step.eta_s)})

    def warn(self, text: str) -> None:
        self._jobs.tell(self._job.id, JobEvent(message=_without_paths(text), level="warn"))


def main(root: str, id_: str, descriptor: str) -> None:
    """The process's own beginning."""
    lock = int(descriptor)
    os.set_inheritable(lock, False)  # the lock is to end with this process, and not with one that it starts
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    run_job(Store(Path(root)), id_)


if __name__ == "__main__":
    main(*sys.argv[1:])
