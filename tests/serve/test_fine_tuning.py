"""`/v1/fine_tuning/jobs` on a real server, through the official client; nobody runs the jobs."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.serve.conftest import Running, ScriptedEngine

from tunesmith.errors import GateRefused
from tunesmith.serve.tuning import AskedJob
from tunesmith.store import Store
from tunesmith.store.jobs import Job, JobEvent, Jobs
from tunesmith.store.uploads import Uploads


class Idle:
    """A `Tuning` that writes down what it is asked for."""

    def __init__(self, store: Store) -> None:
        self.uploads, self.jobs = Uploads(store), Jobs(store.ledger)

    def create(self, asked: AskedJob) -> Job:
        return self.jobs.create({**asdict(asked), "seed": asked.seed or 1}, event=JobEvent(message="created"))

    def cancel(self, id_: str) -> Job:
        return self.jobs.move(self.jobs.find(id_), to="cancelled", event=JobEvent(message="cancelled"))

    def pause(self, id_: str) -> Job:
        return self.jobs.move(self.jobs.find(id_), to="paused", event=JobEvent(message="paused"))

    def resume(self, id_: str) -> Job:
        if self.jobs.find(id_).state != "paused":
            raise GateRefused("it is not paused")
        return self.jobs.move(self.jobs.find(id_), to="queued", event=JobEvent(message="resumed"))


@pytest.fixture
def idle(tmp_path: Path) -> Idle:
    return Idle(Store(tmp_path / "work"))


@pytest.fixture
def server(idle: Idle, running: Callable[..., Running]) -> Running:
    return running(boutique=ScriptedEngine("No."), tuning=idle)


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    url = f"{server.url}/v1"
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60, _strict_response_validation=True)


def _supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}}


def create(client: openai.OpenAI, **fields: Any) -> Any:
    return client.fine_tuning.jobs.create(**{"model": "tunesmith/base", "training_file": "file-1", **fields})


def test_a_job_is_made_paused_resumed_and_cancelled(client: openai.OpenAI) -> None:
    job = create(client, seed=5)
    assert (job.status, job.seed, job.error, job.finished_at) == ("validating_files", 5, None, None)
    assert job.hyperparameters.model_dump() == {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    paused: Any = client.fine_tuning.jobs.pause(job.id)
    assert (paused.status, paused.paused) == ("queued", True)
    resumed: Any = client.fine_tuning.jobs.resume(job.id)
    assert (resumed.status, resumed.paused) == ("queued", False)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(job.id).finished_at
    for again in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.ConflictError) as caught:
            again(job.id)
        assert caught.value.code == "invalid_job_state"


def test_hyperparameters_are_read_from_where_clients_put_them(client: openai.OpenAI) -> None:
    given: Any = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    new = create(client, method={"type": "supervised", "supervised": {"hyperparameters": given}})
    old = create(client, hyperparameters=given)
    for job in (new, old):
        assert job.hyperparameters.model_dump() == given
        assert job.method.supervised.hyperparameters.model_dump() == given
    assert create(client, method={"type": "supervised"}).method.type == "supervised"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {"hyperparameters": {"beta": 1}}}}, "method.dpo"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}}},
            "method.supervised.hyperparameters.n_epochs",
        ),
        ({"hyperparameters": {"learning_rate_multiplier": "big"}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"suffix": "../etc"}, "suffix"),
        ({"suffix": "a" * 64}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"validation_file": "file-1"}, "validation_file"),
        ({"extra_body": {"base": "/etc"}}, "base"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, idle: Idle, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **fields)
    assert caught.value.param == param
    assert idle.jobs.all() == []


def test_jobs_are_listed_page_by_page_and_by_metadata(client: openai.OpenAI, server: Running) -> None:
    ada, bob = ([create(client, metadata={"owner": owner, "n": str(n)}).id for n in range(3)] for owner in ("ada", "bob"))
    nobody = create(client).id
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == [nobody, *bob[::-1], *ada[::-1]]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"owner": "ada"})] == ada[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"owner": "bob", "n": "1"})] == [bob[1]]
    url = f"{server.url}/v1/fine_tuning/jobs"
    assert [job["id"] for job in httpx.get(url, params={"metadata": "null"}).json()["data"]] == [nobody]
    assert httpx.get(url, params={"metadata": "ada"}).status_code == 400


def test_events_are_listed_the_newest_first_and_page_by_page(client: openai.OpenAI, idle: Idle) -> None:
    job = create(client)
    idle.jobs.tell(job.id, *(JobEvent(message=str(n), data={"step": n, "train_loss": 1.5}) for n in range(1, 5)))
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.message for event in events] == ["4", "3", "2", "1", "created"]
    assert (events[0].type, events[0].data, events[-1].type) == ("metrics", {"step": 4, "train_loss": 1.5}, "message")


def test_a_job_that_has_succeeded_names_its_model_and_its_checkpoint(client: openai.OpenAI, idle: Idle) -> None:
    job = create(client)
    idle.jobs.move(idle.jobs.find(job.id), to="queued", event=JobEvent(message="queued"))
    claimed = idle.jobs.claim(host="here", max_running=1)
    assert claimed is not None
    checkpoint = {"step_number": 4, "created_at": 1, "metrics": {"step": 4, "train_loss": 1.0, "valid_loss": 1.5}}
    idle.jobs.record(claimed, outcome={"fine_tuned_model": "a@1", "trained_tokens": 9, "checkpoints": [checkpoint]})
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model is None  # not before it can be chatted with
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []
    idle.jobs.move(claimed, to="succeeded", event=JobEvent(message="done"))
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("succeeded", "a@1", 9)
    kept = client.fine_tuning.jobs.checkpoints.list(job.id).data[0]
    assert (kept.fine_tuned_model_checkpoint, kept.step_number, kept.metrics.valid_loss) == ("a@1", 4, 1.5)


def test_a_job_that_never_was_is_a_404(client: openai.OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    for ask in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError, match="There is no fine-tuning job 'ftjob-1'"):
            ask("ftjob-1")
