"""A soft prompt for the arm of that name: trained once for a recipe's rows, base and passes, and kept as a stage of its own.

Killed, the same command goes on from its checkpoints; finished, it is never trained again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.errors import Interrupted, UserError
from tunesmith.pipeline.preparation import Prepared
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.stages import finished_stage, only_one, run_stage, stage_key
from tunesmith.pipeline.stopping import asked_to_stop
from tunesmith.store import Store

if TYPE_CHECKING:
    from tunesmith.train import Job

__all__ = ["NUM_TOKENS", "SoftPrompt", "trained_soft_prompt"]

NUM_TOKENS = 20
"""Vectors: beyond 20 there is little gain (Lester et al. 2021, section 3.2)."""
_FACTS = "soft_prompt.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftPrompt:
    """One that was trained."""

    folder: Path
    """In PEFT's format."""
    details: dict[str, Any]
    """How it was trained, in plain values."""


def trained_soft_prompt(prepared: Prepared, *, store: Store, watcher: Watcher) -> SoftPrompt | None:
    """Train the soft prompt that a recipe asks for, or find what was trained before.

    It sees the same rows, as often and in steps of as many tokens, as the model that it is compared with.

    Args:
        prepared: the recipe's data and base.
        store: the workspace.
        watcher: hears each step.

    Returns:
        None where the recipe names no such arm, where the model has no base, or where the context has no room for it.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
        UserError: it cannot be trained here; the message says how to go on without it.
    """
    from tunesmith.train.soft_prompt import soft_prompt_job

    if "soft_prompt" not in prepared.loaded.recipe.evaluate.arms or prepared.job.base is None:
        return None
    if prepared.max_length < 2 * NUM_TOKENS:
        watcher.warn(
            f"the base reads {prepared.max_length} tokens, of which a soft prompt of {NUM_TOKENS} would leave too few: "
            "the arm soft_prompt is left out"
        )
        return None
    job = soft_prompt_job(prepared.job, num_tokens=NUM_TOKENS)
    key = _key(prepared, job=job)
    started, is_cached = time.monotonic(), finished_stage(store, key) is not None
    if not is_cached:
        watcher.begin("prompt", f"training a soft prompt of {NUM_TOKENS} tokens on {len(job.train):,} rows")
    folder = store.job_folder(key)
    with only_one(folder):
        try:
            artefact = run_stage(
                store, stage="soft_prompt", key=key, build=lambda out: _train(job, folder=folder, out=out, watcher=watcher)
            )
        except Interrupted as error:
            raise Interrupted(f"{error} That was the soft prompt; the model is trained. Go on with the same command.") from error
        except UserError as error:
            raise UserError(
                f"the arm soft_prompt cannot be trained: {error}. The model itself is trained and kept: take `soft_prompt` out of "
                "evaluate.arms, and the same command goes on without it"
            ) from error
    shutil.rmtree(folder, ignore_errors=True)
    details = orjson.loads((artefact.path / _FACTS).read_bytes())
    watcher.stage("prompt", [_in_words(details)], seconds=time.monotonic() - started, is_cached=is_cached)
    return SoftPrompt(folder=artefact.path, details=details)


def _in_words(details: Mapping[str, Any]) -> str:
    loss = details["validation_loss"]
    best = f" · validation {loss:.2f} at step {details['best_step']}" if loss is not None else ""
    return f"soft prompt of {details['tokens']} tokens · {details['num_steps']} steps{best}"


def _key(prepared: Prepared, *, job: Job) -> str:
    return stage_key(
        "soft prompt",
        inputs={
            "snapshot": prepared.snapshot.id,
            "base": prepared.base_digest,
            "train": job.config.model_dump(mode="json"),
            "tokens": job.num_prompt_tokens,
            "learned": [job.learn, job.overlong, job.mix.model_dump(), dict(job.weights)],
            "machine": prepared.machine_kind,
        },
        rooms=("data", "model", "train"),
    )


def _train(job: Job, *, folder: Path, out: Path, watcher: Watcher) -> None:
    from tunesmith.train import Step, train_job

    def tell(step: Step) -> None:
        loss = f"loss {step.loss:.2f}, about {step.eta_s:.0f} s left"
        watcher.progress(f"training the soft prompt ({loss}): step", done=step.step, total=step.total_steps)

    with asked_to_stop(watcher.stopping) as should_stop:
        outcome = train_job(job, checkpoints=folder, out=out, on_step=tell, should_stop=should_stop)
    best = next((point for point in outcome.curve if point.step == outcome.best_step), None)
    facts = {
        "tokens": job.num_prompt_tokens,
        "passes": job.config.epochs,
        "learning_rate": outcome.learning_rate,
        "num_steps": outcome.num_steps,
        "best_step": outcome.best_step,
        "stopped_early": outcome.stopped_early,
        "validation_loss": best.validation_loss if best else None,
        "seed": job.config.seed,
        "warnings": list(outcome.warnings),
    }
    (out / _FACTS).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
