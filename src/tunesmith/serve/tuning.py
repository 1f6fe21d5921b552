"""What the routes of files and fine-tuning jobs ask of whoever runs the jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tunesmith.store.jobs import Job, Jobs
from tunesmith.store.uploads import Uploads

__all__ = ["AskedJob", "Tuning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedJob:
    """A job as a client asked for it; checked for its shape alone."""

    model: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    """What the new versions are called."""
    seed: int | None
    """None: one is drawn."""
    hyperparameters: Mapping[str, int | float | str]
    """`n_epochs`, `batch_size` (examples) and `learning_rate_multiplier`; left out or `auto`: chosen for the client."""
    metadata: Mapping[str, str] | None


class Tuning(Protocol):
    """Files, and the jobs that are made of them."""

    @property
    def uploads(self) -> Uploads: ...

    @property
    def jobs(self) -> Jobs: ...

    def create(self, asked: AskedJob) -> Job:
        """Take a job in, or raise a `Refusal` that names the field."""
        ...

    def cancel(self, id_: str) -> Job:
        """End a job; `GateRefused` where it is over."""
        ...

    def pause(self, id_: str) -> Job:
        """Stop a job at a checkpoint; `GateRefused` where that cannot be."""
        ...

    def resume(self, id_: str) -> Job:
        """Queue a paused job again; `GateRefused` where it is not paused."""
        ...
