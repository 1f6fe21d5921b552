"""Fine-tuning jobs, for people and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from tunesmith.store.jobs import Job, JobEvent
from tunesmith.terminal.layout import columns, field, on_one_line

__all__ = ["job_as_json", "job_screen", "jobs_screen"]


def jobs_screen(jobs: Sequence[Job]) -> Text:
    """One line for each job."""
    if not jobs:
        return Text("no jobs: clients ask for them at POST /v1/fine_tuning/jobs of `tunesmith serve`")
    rows = [["job", "state", "made", "model", "became"]]
    rows += [[job.id, job.state, _time(job.created_at), job.request.get("model", ""), _became(job)] for job in jobs]
    return Text(columns(rows))


def job_screen(job: Job, events: Sequence[JobEvent]) -> Text:
    """One job, and what it told."""
    parts = [field("job", f"{job.id} · {job.state}"), field("model", f"{job.request.get('model', '')} → {_became(job) or '…'}")]
    if error := job.outcome.get("error"):
        parts.append(field("error", on_one_line(error["message"])))
    parts += [Text(f"  {_time(event.created_at)}  {on_one_line(event.message)}") for event in events]
    return Text("\n").join(parts)


def job_as_json(job: Job, *, events: Sequence[JobEvent] | None = None) -> dict[str, Any]:
    """Plain values for `--json`."""
    return asdict(job) | ({} if events is None else {"events": [asdict(event) for event in events]})


def _became(job: Job) -> str:
    return str(job.outcome.get("fine_tuned_model", ""))


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
