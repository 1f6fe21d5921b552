"""`tunesmith jobs ...`: the fine-tuning jobs that clients asked for over HTTP, whether a server runs or not."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, command_group, open_store, show

__all__ = ["jobs_app"]

Id = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, such as ftjob-1a2b.")]

jobs_app = command_group("jobs", "The fine-tuning jobs that clients asked for over HTTP.")


@jobs_app.callback()
def jobs() -> None:
    """The fine-tuning jobs that clients asked for over HTTP."""


@jobs_app.command("list")
def list_jobs(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List all jobs, oldest first."""
    from tunesmith.store.jobs import Jobs
    from tunesmith.terminal.jobs_screen import job_as_json, jobs_screen

    found = Jobs(open_store(workspace).ledger).all()
    show([job_as_json(job) for job in found] if as_json else jobs_screen(found), as_json=as_json)


@jobs_app.command("show")
def show_job(job: Id, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show what a job was asked for, what came of it, and everything that it told."""
    from tunesmith.store.jobs import Jobs
    from tunesmith.terminal.jobs_screen import job_as_json, job_screen

    known = Jobs(open_store(workspace).ledger)
    found, events = known.find(job), known.events(job)
    show(job_as_json(found, events=events) if as_json else job_screen(found, events), as_json=as_json)


@jobs_app.command("cancel")
def cancel_job(job: Id, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """End a job. Its process saves a checkpoint first, and a job that asks for the same goes on from there."""
    from tunesmith.pipeline.jobs import TuningJobs
    from tunesmith.terminal.jobs_screen import job_as_json, jobs_screen

    cancelled = TuningJobs(open_store(workspace)).cancel(job)
    show(job_as_json(cancelled) if as_json else jobs_screen([cancelled]), as_json=as_json)
