"""OpenAI's own client sends a file, has a model made of it, follows it and talks to it; and a server that is killed loses nothing."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from tests.journeys.conftest import command, environment, rows, write_rows

from tunesmith.pipeline.job_process import is_alive

PATIENCE_S = 240


class Served:
    """A server of its own, over a workspace that it shares with nobody."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            command("serve", "tiny@1", "--port", "0", "--api-key", "secret"),
            cwd=folder,
            env=environment(folder / "work"),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = next(line for line in self.process.stderr if "http://" in line)
        url = next(word for word in line.split() if word.startswith("http://"))
        self.client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0, timeout=60, _strict_response_validation=True)

    def end(self, number: int) -> int:
        self.client.close()
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextmanager
def served(folder: Path) -> Iterator[openai.OpenAI]:
    server = Served(folder)
    try:
        yield server.client
    finally:
        assert server.end(signal.SIGTERM) == 0


def wait_for(client: openai.OpenAI, job: str, *states: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while (found := client.fine_tuning.jobs.retrieve(job)).status not in states:
        assert found.status not in {"failed", "cancelled"}, found.error
        assert time.monotonic() < deadline, [event.message for event in client.fine_tuning.jobs.list_events(job)]
        time.sleep(0.2)
    return found


def test_the_official_client_uploads_tunes_follows_and_chats(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "work", tmp_path / "work")
    few = [{"messages": row["messages"]} for row in rows()[:20]]
    write_rows(tmp_path / "train.jsonl", few)
    write_rows(tmp_path / "valid.jsonl", [{"messages": row["messages"]} for row in rows()[40:44]])
    with served(tmp_path) as client:
        with (tmp_path / "train.jsonl").open("rb") as train, (tmp_path / "valid.jsonl").open("rb") as valid:
            sent = client.files.create(file=train, purpose="fine-tune")
            held_out = client.files.create(file=valid, purpose="fine-tune")
        assert (sent.status, sent.filename, sent.bytes) == ("processed", "train.jsonl", (tmp_path / "train.jsonl").stat().st_size)
        assert client.files.content(sent.id).content == (tmp_path / "train.jsonl").read_bytes()
        hyperparameters: Any = {"n_epochs": 2, "batch_size": 10, "learning_rate_multiplier": 2.0}
        job = client.fine_tuning.jobs.create(
            model="tunesmith/base",
            training_file=sent.id,
            validation_file=held_out.id,
            suffix="prices",
            seed=7,
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            metadata={"owner": "ada"},
        )
        assert (job.status, job.model, job.seed, job.metadata) == ("validating_files", "tunesmith/base", 7, {"owner": "ada"})
        assert job.fine_tuned_model is None
        done = wait_for(client, job.id, "succeeded")
        assert done.fine_tuned_model == "prices@1"
        assert done.trained_tokens
        assert done.finished_at
        answer = client.chat.completions.create(
            model=done.fine_tuned_model, messages=[{"role": "user", "content": "What does the dress cost?"}], max_tokens=8
        )
        assert answer.model == "prices@1"
        assert answer.choices[0].message.content
        events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))[::-1]
        assert [event.message for event in events[:5]] == [
            "Created fine-tuning job",
            f"Validating training file: {sent.id}",
            "Files validated, moving job to queued state",
            "Fine-tuning job started",
            "training.jsonl: messages (role/content in 20 of 20 rows)",
        ]
        assert events[-1].message == "The job has successfully completed"
        measured: Any = [event.data for event in events if event.type == "metrics"]
        assert [figures["step"] for figures in measured] == [1, 2, 3, 4]
        assert all(figures["train_loss"] > 0 and figures["valid_loss"] > 0 for figures in measured)
        kept = client.fine_tuning.jobs.checkpoints.list(job.id).data
        assert [(one.fine_tuned_model_checkpoint, one.fine_tuning_job_id) for one in kept] == [("prices@1", job.id)]
        assert kept[0].metrics.valid_loss == min(figures["valid_loss"] for figures in measured)
    recipe = (tmp_path / "work" / "tuning" / job.id / "recipe.yaml").read_text()
    assert "seed: 7" in recipe
    assert "epochs: 2" in recipe


def test_a_job_outlives_its_server_and_is_paused_at_a_checkpoint_by_the_next(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "work", tmp_path / "work")
    write_rows(tmp_path / "train.jsonl", [{"messages": row["messages"]} for row in rows()])
    server = Served(tmp_path)
    jobs = server.client.fine_tuning.jobs
    with (tmp_path / "train.jsonl").open("rb") as train:
        sent = server.client.files.create(file=train, purpose="fine-tune")
    hyperparameters: Any = {"n_epochs": 40}  # minutes
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    job = jobs.create(model="tunesmith/base", training_file=sent.id, method=method)
    folder = tmp_path / "work" / "jobs"
    deadline = time.monotonic() + PATIENCE_S
    while not list(folder.glob("*/train.jsonl")):
        assert time.monotonic() < deadline, jobs.retrieve(job.id)
        time.sleep(0.2)
    pid = int((tmp_path / "work" / "tuning" / job.id / "lock").read_bytes())
    server.end(signal.SIGKILL)
    os.kill(pid, 0)  # the job lives on
    with served(tmp_path) as client:
        jobs = client.fine_tuning.jobs
        assert jobs.retrieve(job.id).status == "running"
        paused: Any = jobs.pause(job.id)
        assert (paused.status, paused.paused) == ("queued", True)
        while is_alive(tmp_path / "work" / "tuning" / job.id):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert list(folder.glob("*/step-*"))
        jobs.resume(job.id)
        wait_for(client, job.id, "running")
        assert any("goes on from its last checkpoint" in event.message for event in jobs.list_events(job.id))
        assert jobs.cancel(job.id).status == "cancelled"
