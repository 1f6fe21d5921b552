"""Fine-tuning jobs that clients ask for over HTTP: taken in, queued, run one after the other in processes of their own, and watched.

All that is known lies in the ledger and in the jobs' folders, so a server that starts anew goes on where another stopped. Of several
servers of one workspace on one machine, one looks after the jobs.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import GateRefused, NotFound, TunesmithError
from tunesmith.pipeline.job_process import ask_to_stop, is_alive, job_folder, start_job
from tunesmith.pipeline.job_recipe import TRAINING, VALIDATION
from tunesmith.store import Store, files_of
from tunesmith.store.folders import make_folder
from tunesmith.store.jobs import FINAL, Job, JobEvent, Jobs, this_host
from tunesmith.store.uploads import Uploads

if TYPE_CHECKING:
    from tunesmith.serve.tuning import AskedJob

__all__ = ["TuningJobs"]

_LOG = logging.getLogger("tunesmith.jobs")
_TICK_S = 0.5
_MAX_ATTEMPTS = 2
"""Starts of a job whose process ends without a word: a second chance, and no third."""
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ADAPTER = "adapter_config.json"


class TuningJobs:
    """The jobs of a workspace; a `serve.Tuning`."""

    def __init__(
        self,
        store: Store,
        *,
        bases: Sequence[str] = ("tunesmith/base",),
        served: Callable[[str], str | None] = lambda _: None,
        max_running: int = 1,
        start: Callable[[Store, Job], None] = start_job,
    ) -> None:
        """Keep the parts.

        Args:
            store: the workspace.
            bases: models that may be tuned besides the versions of the workspace.
            served: from a name that the server knows to the version it stands for.
            max_running: jobs that run at once.
            start: begins a job's process.
        """
        self.jobs = Jobs(store.ledger)
        self.uploads = Uploads(store)
        self._store = store
        self._bases = tuple(bases)
        self._served = served
        self._max_running = max_running
        self._start_process = start
        self._wake = threading.Event()
        self._is_closed = False
        self._may_live: set[str] = set()

    def create(self, asked: AskedJob) -> Job:
        """Take a job in.

        Raises:
            Refusal: the model or a file cannot be used.
        """
        base = self._base(asked.model)
        for name in ("training_file", "validation_file"):
            if (id_ := getattr(asked, name)) is not None:
                self._require_file(id_, param=name)
        request = asdict(asked) | {
            "base": base,
            "name": asked.suffix or _family(base),
            "seed": secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        }
        job = self.jobs.create(request, event=JobEvent(message="Created fine-tuning job"))
        self.jobs.tell(job.id, JobEvent(message=f"Validating training file: {asked.training_file}"))
        self._wake.set()
        return job

    def cancel(self, id_: str) -> Job:
        """End a job; what it has written stays on the server until the same job is asked for again.

        Raises:
            NotFound: there is no such job.
            GateRefused: it is over.
        """
        return self._stop(id_, to="cancelled", event=JobEvent(message="The job was cancelled"))

    def pause(self, id_: str) -> Job:
        """Stop a job at a checkpoint, from which it can be resumed.

        Raises:
            NotFound: there is no such job.
            GateRefused: it is over, or paused already.
        """
        return self._stop(id_, to="paused", event=JobEvent(message="The job was paused"))

    def resume(self, id_: str) -> Job:
        """Queue a paused job again.

        Raises:
            NotFound: there is no such job.
            GateRefused: it is not paused.
        """
        job = self.jobs.find(id_)
        if job.state != "paused":
            raise GateRefused(f"the job {job.id} is {job.state}, not paused")
        resumed = self.jobs.move(job, to="queued", event=JobEvent(message="The job was resumed"), attempts=0)
        self._wake.set()
        return resumed

    @contextmanager
    def running(self, *, on_finished: Callable[[str], object] = lambda _: None) -> Iterator[None]:
        """While the block runs, jobs are started and watched. At its end the processes of jobs go on.

        Args:
            on_finished: given the ref of a version that a job has made, before the job is declared to have succeeded: what a client
                then asks for is there.
        """
        thread = threading.Thread(target=self._watch, args=(on_finished,), name="jobs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_closed = True
            self._wake.set()
            thread.join(timeout=10)

    def _watch(self, on_finished: Callable[[str], object]) -> None:
        with self._only_watcher() as is_mine:
            if is_mine:
                self.uploads.clear_parts()
                self._may_live = {path.name for path in self._store.tuning.iterdir() if path.is_dir()}
            while is_mine and not self._is_closed:
                try:
                    self._look(on_finished)
                except Exception:  # a ledger that is out of reach for a while ends no watch
                    _LOG.exception("looking after the jobs failed; it is tried again")
                self._wake.wait(_TICK_S)
                self._wake.clear()

    @contextmanager
    def _only_watcher(self) -> Iterator[bool]:
        """Wait until no other server looks after the jobs; False where this one ends before."""
        with (make_folder(self._store.tuning) / "watcher.lock").open("a") as lock:
            while not self._is_closed:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                self._wake.wait(_TICK_S)
                self._wake.clear()
            yield not self._is_closed

    def _look(self, on_finished: Callable[[str], object]) -> None:
        for job in self.jobs.all("validating_files"):
            self._validate(job)
        for job in self.jobs.all("running"):
            if job.host == this_host() and not is_alive(job_folder(self._store, job.id)):
                self._settle(self.jobs.find(job.id), on_finished=on_finished)
        self._may_live = {id_ for id_ in self._may_live if is_alive(job_folder(self._store, id_))}
        while len(self._may_live) < self._max_running:
            job_to_start = self.jobs.claim(host=this_host(), max_running=self._max_running)
            if job_to_start is None:
                return
            self._start(job_to_start)

    def _validate(self, job: Job) -> None:
        with suppress(GateRefused):
            if self._missing(job) is None:
                self.jobs.move(job, to="queued", event=JobEvent(message="Files validated, moving job to queued state"))
            else:
                self._fail_for_file(job)

    def _start(self, job: Job) -> None:
        folder = make_folder(job_folder(self._store, job.id))
        for param, name in (("training_file", TRAINING), ("validation_file", VALIDATION)):
            if job.request[param] is None or (folder / name).is_file():
                continue
            try:
                _link(self.uploads.path(self.uploads.find(job.request[param])), folder / name)
            except (NotFound, FileNotFoundError):
                self._fail_for_file(job)
                return
        self._start_process(self._store, job)
        self._may_live.add(job.id)

    def _settle(self, job: Job, *, on_finished: Callable[[str], object]) -> None:
        """A job's process is gone: it has finished, or was killed."""
        if job.state != "running":
            return
        ref = job.outcome.get("fine_tuned_model")
        with suppress(GateRefused):
            if ref is not None:
                try:
                    on_finished(ref)
                except Exception:
                    _LOG.exception("%s cannot be served", ref)
                    self.jobs.tell(job.id, JobEvent(message=f"{ref} was made, but this server cannot load it", level="warn"))
                self.jobs.tell(job.id, JobEvent(message=f"New fine-tuned model created: {ref}"))
                self.jobs.move(job, to="succeeded", event=JobEvent(message="The job has successfully completed"))
            elif job.attempts < _MAX_ATTEMPTS:
                message = "The job's process ended without a word (killed, or out of memory); it is started once more"
                self.jobs.move(job, to="queued", event=JobEvent(message=message, level="warn"))
            else:
                message = f"The job's process ended without a word {job.attempts} times (killed, or out of memory)"
                error = {"code": "process_died", "message": message, "param": None}
                self.jobs.move(job, to="failed", event=JobEvent(message=message, level="error"), outcome={"error": error})

    def _stop(self, id_: str, *, to: str, event: JobEvent) -> Job:
        while True:
            job = self.jobs.find(id_)
            if job.state in FINAL or job.state == to:
                raise GateRefused(f"the job {job.id} is {job.state} already")
            with suppress(GateRefused):  # somebody was faster: look again
                stopped = self.jobs.move(job, to=to, event=event)
                ask_to_stop(job_folder(self._store, job.id))
                self._wake.set()
                return stopped

    def _base(self, model: str) -> str:
        """What a model's name stands for now; a version by its number, so that the job means the same tomorrow."""
        from tunesmith.serve.refusal import Refusal, clipped

        if model in self._bases:
            return model
        try:
            version = self._store.ledger.version(self._served(model) or model)
        except NotFound:
            known = ", ".join(self._bases)
            message = (
                f"There is no model {clipped(model)!r} to tune. Known: {known}, and this server's versions, such as boutique@3."
            )
            raise Refusal(message, param="model", code="model_not_found") from None
        try:
            folder = files_of(version, store=self._store).path
        except TunesmithError:
            raise Refusal(f"The files of {version.ref} are not there.", param="model", code="model_not_found") from None
        if (folder / _ADAPTER).exists():
            message = f"{version.ref} is an adapter, and only whole models can be tuned further. Name its base."
            raise Refusal(message, param="model", code="invalid_value")
        return version.ref

    def _require_file(self, id_: str, *, param: str) -> None:
        from tunesmith.serve.refusal import Refusal, clipped

        try:
            self.uploads.find(id_)
        except NotFound:
            message = f"There is no file {clipped(id_)!r}. Upload it first: POST /v1/files with purpose fine-tune."
            raise Refusal(message, param=param, code="file_not_found") from None

    def _missing(self, job: Job) -> str | None:
        for param in ("training_file", "validation_file"):
            try:
                if job.request[param] is not None and not self.uploads.path(self.uploads.find(job.request[param])).is_file():
                    return param
            except NotFound:
                return param
        return None

    def _fail_for_file(self, job: Job) -> None:
        param = self._missing(job) or "training_file"
        message = f"The file {job.request[param]} is not there any more: it was deleted before the job began"
        error = {"code": f"invalid_{param}", "message": message, "param": param}
        with suppress(GateRefused):
            self.jobs.move(job, to="failed", event=JobEvent(message=message, level="error"), outcome={"error": error})


def _family(base: str) -> str:
    """What a version is called whose job names no suffix: `boutique@3` has children called boutique, `tunesmith/base` base-tuned."""
    if "@" in base and "/" not in base:
        return base.partition("@")[0]
    name = _UNFIT.sub("-", base.rpartition("/")[2])[:56] + "-tuned"
    return name if _NAME.fullmatch(name) else "tuned"


def _link(source: Path, target: Path) -> None:
    """The job's own name for a file, which outlives the client's."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        half = target.with_suffix(".half")
        shutil.copyfile(source, half)
        half.replace(target)
