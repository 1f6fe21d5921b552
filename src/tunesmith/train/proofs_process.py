"""Proofs that need another process: killed and resumed, and loaded anew. This is the side that asks (`fresh`); `proofs_child` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.model.adapter_files import ADAPTER_CONFIG
from tunesmith.records import Proof, TokenBatch
from tunesmith.train.config import TrainConfig
from tunesmith.train.probe import Probe
from tunesmith.train.proofs_measure import EXACT, difference, documents

__all__ = ["Saved", "prove_reloaded", "prove_resumed", "read_task", "train_task"]

_KILLED = -9
_MOST_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Where weights lie: a whole model, or an adapter with the base it belongs to."""

    folder: Path
    base: Path | None

    @property
    def is_adapter(self) -> bool:
        return (self.folder / ADAPTER_CONFIG).is_file()

    def as_json(self) -> dict[str, str | None]:
        """For a task."""
        return {"folder": str(self.folder), "base": str(self.base) if self.is_adapter else None}


def train_task(saved: Saved, *, batch: TokenBatch, config: TrainConfig) -> dict[str, object]:
    """A few steps of training on a few rows."""
    rows = [row for row in documents(batch) if row.num_supervised][:_MOST_ROWS]
    return {
        **saved.as_json(),
        "rows": [[row.tokens.tolist(), row.targets.tolist(), row.weights.tolist()] for row in rows],
        "config": config.model_dump(mode="json"),
    }


def read_task(saved: Saved, *, probe: Probe) -> dict[str, object]:
    """What saved weights say of a probe's rows."""
    return {**saved.as_json(), "rows": [list(row) for row in probe.rows], "number_format": probe.number_format}


def prove_resumed(answer: Mapping[str, Any], *, trained: str) -> Proof:
    """A run that was killed and begun again, against one that was left alone.

    Args:
        answer: the fresh process's, on a `train_task`.
        trained: what was trained, in words.
    """
    ends, said = answer["ends"], answer["said"]
    went_as_meant = ends == [0, _KILLED, 0] and len(said) == 2 and said[1]["first_step"] > 1
    differ = sum(said[0][key] != said[1][key] for key in ("weights_digest", "curve")) if went_as_meant else None
    compared = (
        f"{trained}, fp32 on the CPU: a run that got SIGKILL and went on at step {said[1]['first_step']}, and one left alone: "
        f"weights {said[1]['weights_digest'][:12]} and {said[0]['weights_digest'][:12]}, and their learning curves"
        if went_as_meant
        else f"the runs did not go as meant: exit codes {ends}, expected [0, {_KILLED}, 0], and a checkpoint to go on from"
    )
    return Proof(
        name="killed and resumed = uninterrupted",
        meaning="A run that is killed goes on to the very same weights, bit for bit.",
        compared=compared,
        figure=None if differ is None else float(differ),
        tolerance=EXACT,
        holds=differ == 0,
    )


def prove_reloaded(read: Sequence[Sequence[float]], probe: Probe, *, tolerance: float, when: str) -> Proof:
    """What a fresh process reads from the saved weights, against what the model in memory said.

    Args:
        read: the fresh process's answer to a `read_task` with the probe's rows.
        probe: what the model in memory said.
        tolerance: see `proofs_measure.rounding`.
        when: the moment at which it said so, in words.
    """
    found, expected = (torch.tensor([value for row in rows for value in row]) for rows in (read, probe.log_likelihoods))
    figure = difference(found, expected)
    return Proof(
        name="reloaded in a fresh process = in memory",
        meaning="What was saved is what was trained, and loads the same anywhere.",
        compared=f"log-likelihoods of {len(expected)} tokens: {when}, and in a new process that read the saved files",
        figure=figure,
        tolerance=tolerance,
        holds=figure <= tolerance,
    )
