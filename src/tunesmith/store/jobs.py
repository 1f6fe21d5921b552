"""Fine-tuning jobs: what was asked for, in which state it is, what came of it, and the events that tell how it went.

    validating_files ─► queued ─► running ─► succeeded
             │            │  ▲       │  │
             └──► paused ◄┘  └───────┘  └──► failed          Any state but the last three may become `cancelled`.

A state changes only from one that the change knows: of a server that starts a job and a client that cancels it, one is refused.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tunesmith.errors import GateRefused, NotFound
from tunesmith.store.database import Database
from tunesmith.store.ledger import Ledger
from tunesmith.store.schema import job_events, jobs
from tunesmith.store.uploads import new_id

__all__ = ["FINAL", "Job", "JobEvent", "Jobs", "this_host"]

FINAL = frozenset({"succeeded", "failed", "cancelled"})
_BEFORE: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"validating_files", "paused", "running"}),
    "running": frozenset({"queued"}),
    "paused": frozenset({"validating_files", "queued", "running"}),
    "succeeded": frozenset({"running"}),
    "failed": frozenset({"validating_files", "queued", "running"}),
    "cancelled": frozenset({"validating_files", "queued", "running", "paused"}),
}
"""From which states one comes to each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that a job told."""

    message: str
    level: str = "info"
    """`info`, `warn` or `error`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Figures by name, of an event that tells figures."""
    id: str = ""
    created_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A fine-tuning job."""

    id: str
    created_at: int
    """Unix seconds."""
    state: str
    generation: int
    """Goes up by one with every change of state."""
    host: str
    """The machine on which it runs or last ran; empty before."""
    attempts: int
    """Starts since it was made or resumed."""
    request: Mapping[str, Any]
    """What was asked for; never changed."""
    outcome: Mapping[str, Any]
    """What is known of it by now: `fine_tuned_model`, `trained_tokens`, `checkpoints`, `estimated_finish`, `error`."""
    finished_at: int | None


class Jobs:
    """The jobs of a ledger. Every change is one transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._database: Database = ledger.database

    def create(self, request: Mapping[str, Any], *, event: JobEvent) -> Job:
        """Add a job in the state `validating_files`."""
        id_, now = new_id("ftjob"), int(time.time())
        with self._database.write() as connection:
            connection.execute(
                sa.insert(jobs).values(
                    id=id_,
                    created_at=now,
                    state="validating_files",
                    generation=1,
                    host="",
                    attempts=0,
                    request=dict(request),
                    outcome={},
                    finished_at=None,
                )
            )
            _append(connection, id_, event)
            return _find(connection, id_)

    def find(self, id: str) -> Job:  # noqa: A002 - the wire's own word
        """Look a job up.

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            return _find(connection, id)

    def all(self, *states: str) -> Sequence[Job]:
        """Every job, or those in some states, oldest first."""
        query = sa.select(jobs).order_by(jobs.c.seq)
        with self._database.read() as connection:
            return [_job_of(row) for row in connection.execute(query.where(jobs.c.state.in_(states)) if states else query)]

    def made(self, *, most: int = 8) -> Sequence[str]:
        """The versions that the latest jobs have made, the newest first."""
        may_have = jobs.c.state.in_(("running", "succeeded"))
        query = sa.select(jobs).where(may_have).order_by(jobs.c.seq.desc()).limit(most)
        with self._database.read() as connection:
            found = [_job_of(row) for row in connection.execute(query)]
        return [ref for job in found if (ref := job.outcome.get("fine_tuned_model"))]

    def move(
        self, job: Job, *, to: str, event: JobEvent, attempts: int | None = None, outcome: Mapping[str, Any] | None = None
    ) -> Job:
        """Change a job's state, if it is still as it was seen.

        Args:
            job: as it was last seen.
            to: the new state.
            event: what is told of it.
            attempts: counted anew from here.
            outcome: laid over what is known of it.

        Raises:
            GateRefused: it cannot come to that state from the one it is in by now.
        """
        with self._database.write() as connection:
            now = _find(connection, job.id)
            if now.generation != job.generation or now.state not in _BEFORE[to]:
                raise GateRefused(f"the job {job.id} is {now.state} and cannot become {to}")
            return _put(connection, now, state=to, event=event, attempts=attempts, outcome=outcome)

    def claim(self, *, host: str, max_running: int) -> Job | None:
        """Take the oldest queued job to run it here, unless as many run here as may."""
        with self._database.write() as connection:
            num_running = connection.scalar(
                sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == "running", jobs.c.host == host)
            )
            row = connection.execute(sa.select(jobs).where(jobs.c.state == "queued").order_by(jobs.c.seq).limit(1)).first()
            if row is None or (num_running or 0) >= max_running:
                return None
            job = _job_of(row)
            is_first = not job.host
            event = JobEvent(
                message="Fine-tuning job started" if is_first else "Fine-tuning job goes on from its last checkpoint"
            )
            return _put(connection, job, state="running", event=event, attempts=job.attempts + 1, host=host)

    def record(self, job: Job, *, outcome: Mapping[str, Any]) -> bool:
        """Lay something over what is known of a job; False where it has changed its state since it was seen."""
        with self._database.write() as connection:
            now = _find(connection, job.id)
            if now.generation != job.generation:
                return False
            connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(outcome={**now.outcome, **outcome}))
            return True

    def tell(self, id: str, *events: JobEvent) -> None:  # noqa: A002
        """Add events to a job's."""
        with self._database.write() as connection:
            for event in events:
                _append(connection, id, event)

    def events(self, id: str) -> Sequence[JobEvent]:  # noqa: A002
        """Everything that a job told, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(job_events).where(job_events.c.job == id).order_by(job_events.c.seq)).all()
        return [
            JobEvent(message=row.message, level=row.level, data=row.data, id=row.id, created_at=row.created_at) for row in rows
        ]


def this_host() -> str:
    """What this machine is called in a ledger that several share."""
    return platform.node() or "localhost"


def _find(connection: sa.Connection, id_: str) -> Job:
    row = connection.execute(sa.select(jobs).where(jobs.c.id == id_)).first()
    if row is None:
        raise NotFound(f"there is no fine-tuning job {id_[:64]!r}")
    return _job_of(row)


def _put(
    connection: sa.Connection,
    job: Job,
    *,
    state: str,
    event: JobEvent,
    attempts: int | None,
    host: str | None = None,
    outcome: Mapping[str, Any] | None = None,
) -> Job:
    changed = {
        "state": state,
        "generation": job.generation + 1,
        "attempts": job.attempts if attempts is None else attempts,
        "host": job.host if host is None else host,
        "outcome": {**job.outcome, **(outcome or {})},
        "finished_at": int(time.time()) if state in FINAL else None,
    }
    connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(changed))
    _append(connection, job.id, event)
    return _find(connection, job.id)


def _append(connection: sa.Connection, id_: str, event: JobEvent) -> None:
    connection.execute(
        sa.insert(job_events).values(
            id=new_id("ftevent"),
            job=id_,
            created_at=int(time.time()),
            level=event.level,
            message=event.message,
            data=dict(event.data),
        )
    )


def _job_of(row: sa.Row[tuple[object, ...]]) -> Job:
    return Job(**{name: value for name, value in row._mapping.items() if name != "seq"})
