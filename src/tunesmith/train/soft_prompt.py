"""The training of a soft prompt beside that of a model: the same rows, passes and seed, in the same loop."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.train.config import TrainConfig
from tunesmith.train.preparation import Job

__all__ = ["soft_prompt_job"]

_SHARED = (
    "epochs",
    "max_steps",
    "compute",
    "max_length",
    "batch_tokens",
    "micro_batch_tokens",
    "evaluations",
    "patience",
    "seed",
)
"""What is the same for both; learning rate, schedule and optimiser are the method's own choice and not the recipe's."""


def soft_prompt_job(job: Job, *, num_tokens: int) -> Job:
    """The job that trains a soft prompt instead, in front of the same frozen base.

    Args:
        job: with a base.
        num_tokens: vectors in the prompt, 1 or more, and fewer than the base's context.
    """
    config = TrainConfig(**{name: getattr(job.config, name) for name in _SHARED})
    # What fitted beside nothing may not fit beside a prompt: that is no reason to refuse a run whose own rows were not cut.
    overlong = "right" if job.overlong == "error" else job.overlong
    return replace(job, config=config, overlong=overlong, num_prompt_tokens=num_tokens)
