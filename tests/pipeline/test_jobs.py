"""Who looks after jobs: queued, started, found again, stopped and reported dead. The processes are real, what they do is scripted."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import GateRefused
from tunesmith.pipeline.job_process import is_alive, job_folder, start_job
from tunesmith.pipeline.jobs import TuningJobs
from tunesmith.records import ModelVersion
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.tuning import AskedJob
from tunesmith.store import Store
from tunesmith.store.jobs import FINAL, Job, Jobs

# A job's process, without a model: it says that it lives, and then makes what the test's folder tells it to.
WORK = """
import os, pathlib, sys, time
from tunesmith.store import Store
from tunesmith.store.jobs import Jobs
root, id_, lock = sys.argv[1:]
os.set_inheritable(int(lock), False)
os.ftruncate(int(lock), 0)
os.pwrite(int(lock), str(os.getpid()).encode(), 0)
jobs = Jobs(Store(pathlib.Path(root)).ledger)
job = jobs.find(id_)
while not (pathlib.Path(root) / "may-end").exists():
    time.sleep(0.02)
jobs.record(job, outcome={"fine_tuned_model": "tiny@1", "trained_tokens": 9})
"""


class World:
    """A workspace whose jobs run in scripted processes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.store = Store(folder / "work")
        self.stack = stack
        self.finished: list[str] = []
        self.tuning = self.open()

    def open(self, **options: object) -> TuningJobs:
        start = partial(start_job, command=(sys.executable, "-c", WORK))
        return TuningJobs(self.store, start=start, **options)  # type: ignore[arg-type]

    def run(self, tuning: TuningJobs | None = None) -> None:
        self.stack.enter_context((tuning or self.tuning).running(on_finished=self.finished.append))

    def file(self) -> str:
        part = self.tuning.uploads.part()
        part.write_bytes(b"{}\n")
        return self.tuning.uploads.keep(part, filename="rows.jsonl", purpose="fine-tune", num_rows=1).id

    def ask(self, file: str, **fields: object) -> Job:
        asked = {"validation_file": None, "suffix": None, "seed": None, "hyperparameters": {}, "metadata": None, **fields}
        return self.tuning.create(AskedJob(model="tunesmith/base", training_file=file, **asked))  # type: ignore[arg-type]

    def wait(self, job: Job, *states: str) -> Job:
        deadline = time.monotonic() + 100
        while (found := self.tuning.jobs.find(job.id)).state not in states:
            assert time.monotonic() < deadline, (found, self.told(job))
            time.sleep(0.02)
        return found

    def pid(self, job: Job) -> int:
        lock = job_folder(self.store, job.id) / "lock"
        while not (lock.exists() and lock.read_bytes()):
            time.sleep(0.02)
        return int(lock.read_bytes())

    def told(self, job: Job) -> list[str]:
        return [event.message for event in self.tuning.jobs.events(job.id)]

    def let_end(self) -> None:
        self.store.root.mkdir(parents=True, exist_ok=True)
        (self.store.root / "may-end").touch()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        world = World(tmp_path, stack)
        yield world
        world.let_end()
    for job in world.tuning.jobs.all():
        while is_alive(job_folder(world.store, job.id)):
            time.sleep(0.02)


def test_a_job_succeeds_once_its_version_can_be_asked(world: World) -> None:
    world.run()
    job = world.ask(world.file())
    world.let_end()
    done = world.wait(job, *FINAL)
    assert (done.state, done.outcome["fine_tuned_model"], world.finished) == ("succeeded", "tiny@1", ["tiny@1"])
    assert world.told(job) == [
        "Created fine-tuning job",
        f"Validating training file: {job.request['training_file']}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "New fine-tuned model created: tiny@1",
        "The job has successfully completed",
    ]


def test_of_two_jobs_the_second_waits_for_the_first(world: World) -> None:
    world.run()
    file = world.file()
    first, second = world.ask(file), world.ask(file)
    world.pid(first)
    world.wait(second, "queued")
    time.sleep(0.7)  # longer than the watch sleeps
    assert [world.tuning.jobs.find(job.id).state for job in (first, second)] == ["running", "queued"]
    world.let_end()
    world.wait(second, "succeeded")
    assert world.wait(first, *FINAL).state == "succeeded"


def test_a_job_whose_process_is_killed_is_started_once_more_and_then_reported(world: World) -> None:
    world.run()
    job = world.ask(world.file())
    killed = world.pid(job)
    os.kill(killed, signal.SIGKILL)
    while (again := world.pid(job)) == killed:
        time.sleep(0.02)
    assert world.wait(job, "running").attempts == 2
    os.kill(again, signal.SIGKILL)
    failed = world.wait(job, *FINAL)
    assert (failed.state, failed.outcome["error"]["code"]) == ("failed", "process_died")
    assert "ended without a word 2 times" in failed.outcome["error"]["message"]
    assert sum("is started once more" in message for message in world.told(job)) == 1


def test_a_new_server_finds_the_job_of_the_old_one(world: World) -> None:
    with world.tuning.running():
        job = world.ask(world.file())
        pid = world.pid(job)
    assert is_alive(job_folder(world.store, job.id))  # its end stops no job
    world.run(world.open())
    time.sleep(0.7)
    assert (world.tuning.jobs.find(job.id).state, world.pid(job)) == ("running", pid)
    world.let_end()
    assert world.wait(job, *FINAL).state == "succeeded"
    assert world.finished == ["tiny@1"]


def test_what_ended_while_no_server_looked_is_settled_by_the_next(world: World) -> None:
    with world.tuning.running():
        finishes = world.ask(world.file())
        world.pid(finishes)
    world.let_end()
    while is_alive(job_folder(world.store, finishes.id)):
        time.sleep(0.02)
    assert world.tuning.jobs.find(finishes.id).state == "running"
    world.run(world.open())
    assert world.wait(finishes, *FINAL).state == "succeeded"


def test_of_two_servers_one_looks_after_the_jobs(world: World) -> None:
    world.run()
    world.run(world.open())
    file = world.file()
    jobs = [world.ask(file) for _ in range(3)]
    world.let_end()
    for job in jobs:
        assert world.wait(job, *FINAL).state == "succeeded"
        assert world.told(job).count("Fine-tuning job started") == 1
    assert len(world.finished) == 3


@pytest.mark.parametrize(("stop", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_stopping_a_job_ends_its_process_and_makes_room(world: World, stop: str, state: str) -> None:
    world.run()
    file = world.file()
    job, next_one = world.ask(file), world.ask(file)
    world.pid(job)
    act: Callable[[str], Job] = getattr(world.tuning, stop)
    assert act(job.id).state == state
    world.wait(next_one, "running")
    assert not is_alive(job_folder(world.store, job.id))
    with pytest.raises(GateRefused, match=f"is {state} already"):
        act(job.id)
    if stop == "pause":
        assert world.tuning.resume(job.id).state == "queued"
        world.let_end()
        assert world.wait(job, *FINAL).state == "succeeded"
        assert "Fine-tuning job goes on from its last checkpoint" in world.told(job)
    else:
        with pytest.raises(GateRefused, match="not paused"):
            world.tuning.resume(job.id)


def test_a_file_that_is_deleted_before_its_job_begins_fails_the_job_and_a_later_one_does_not(world: World) -> None:
    world.run()
    kept, gone = world.file(), world.file()
    begun, waiting = world.ask(kept), world.ask(gone)
    world.pid(begun)
    world.tuning.uploads.delete(kept)
    world.tuning.uploads.delete(gone)
    world.let_end()
    failed = world.wait(waiting, *FINAL)
    assert failed.outcome["error"]["code"] == "invalid_training_file"
    assert "deleted before the job began" in failed.outcome["error"]["message"]
    assert world.wait(begun, *FINAL).state == "succeeded"
    assert (job_folder(world.store, begun.id) / "training.jsonl").read_bytes() == b"{}\n"


def test_a_version_that_cannot_be_loaded_is_made_all_the_same(world: World) -> None:
    def fail(_: str) -> None:
        raise OSError("no memory")

    world.stack.enter_context(world.tuning.running(on_finished=fail))
    world.let_end()
    job = world.ask(world.file())
    assert world.wait(job, *FINAL).state == "succeeded"
    assert "tiny@1 was made, but this server cannot load it" in world.told(job)


def register(store: Store, *, is_adapter: bool) -> None:
    with store.artefacts.publish("model") as staging:
        (staging.path / ("adapter_config.json" if is_adapter else "config.json")).write_text("{}")
    version = ModelVersion(
        name="boutique", number=0, run=str(is_adapter), artefact=staging.artefact.digest, weights_digest="w", chat_digest="c",
        base_digest="b", created_at="",
    )  # fmt: skip
    store.ledger.register(version)


def test_a_job_is_named_after_what_it_tunes_and_means_the_same_tomorrow(world: World) -> None:
    register(world.store, is_adapter=False)
    file = world.file()
    assert world.ask(file).request["name"] == "base-tuned"
    assert world.ask(file, suffix="prices").request["name"] == "prices"
    asked = AskedJob(
        model="boutique", training_file=file, validation_file=None, suffix=None, seed=None, hyperparameters={}, metadata=None
    )
    job = world.tuning.create(asked)
    assert (job.request["base"], job.request["name"], job.request["model"]) == ("boutique@1", "boutique", "boutique")
    assert 0 <= job.request["seed"] < 2**31


@pytest.mark.parametrize("model", ["nothing", "/etc", "../..", "hub/name", "boutique@2", ""])
def test_only_known_models_are_tuned(world: World, model: str) -> None:
    register(world.store, is_adapter=False)
    asked = {"validation_file": None, "suffix": None, "seed": None, "hyperparameters": {}, "metadata": None}
    with pytest.raises(Refusal, match="There is no model") as caught:
        world.tuning.create(AskedJob(model=model, training_file=world.file(), **asked))  # type: ignore[arg-type]
    assert caught.value.param == "model"


def test_an_adapter_and_a_file_that_is_not_there_are_refused_by_name(world: World) -> None:
    register(world.store, is_adapter=True)
    for model, file, param in (("boutique@1", world.file(), "model"), ("tunesmith/base", "file-none", "training_file")):
        asked = AskedJob(
            model=model, training_file=file, validation_file=None, suffix=None, seed=None, hyperparameters={}, metadata=None
        )
        with pytest.raises(Refusal) as caught:
            world.tuning.create(asked)
        assert caught.value.param == param
    assert Jobs(world.store.ledger).all() == []


def test_the_command_line_lists_shows_and_cancels_jobs(world: World) -> None:
    cli = CliRunner()
    root = ["--workspace", str(world.store.root)]
    assert "no jobs" in cli.invoke(app, ["jobs", "list", *root]).stdout
    world.run()
    job = world.ask(world.file(), suffix="prices")
    world.pid(job)
    listed = json.loads(cli.invoke(app, ["jobs", "list", "--json", *root]).stdout)
    assert [(one["id"], one["state"], one["request"]["name"]) for one in listed] == [(job.id, "running", "prices")]
    assert "Fine-tuning job started" in cli.invoke(app, ["jobs", "show", job.id, *root]).stdout
    assert "cancelled" in cli.invoke(app, ["jobs", "cancel", job.id, *root]).stdout
    while is_alive(job_folder(world.store, job.id)):
        time.sleep(0.02)
    shown = json.loads(cli.invoke(app, ["jobs", "show", job.id, "--json", *root]).stdout)
    assert (shown["state"], shown["events"][-1]["message"]) == ("cancelled", "The job was cancelled")
    assert isinstance(cli.invoke(app, ["jobs", "cancel", job.id, *root]).exception, GateRefused)
