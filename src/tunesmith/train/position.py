"""Where a run stands: all that changes from step to step, and its way into a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tunesmith.records import CurvePoint
from tunesmith.train.checkpoint import newest_checkpoint, write_checkpoint
from tunesmith.train.stream import Cursor, Epochs

__all__ = ["Position", "load_weights"]


@dataclass(slots=True)
class Position:
    """A place in a run. `trained` and `optimiser` are the run's own, changed in place."""

    trained: Mapping[str, nn.Parameter]
    optimiser: torch.optim.AdamW
    cursor: Cursor
    step: int = 0
    """Optimiser steps done."""
    curve: list[CurvePoint] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights with the lowest validation loss so far; empty before the first measurement."""
    best_loss: float = math.inf
    best_step: int = 0
    unimproved: int = 0
    """Measurements since the best one."""
    recent_loss: float = 0.0
    """Sum of the losses since the last measurement, over `recent_steps`."""
    recent_steps: int = 0
    first_loss: float = 0.0
    """Of the first step, before anything was learned."""
    num_clipped: int = 0
    """Steps whose gradient was longer than allowed."""

    @property
    def mean_loss(self) -> float:
        return self.recent_loss / max(self.recent_steps, 1)

    def count(self, loss: float) -> None:
        """One step is done."""
        if not self.step:
            self.first_loss = loss
        self.step += 1
        self.recent_loss += loss
        self.recent_steps += 1

    def measure(self, validation_loss: float | None) -> None:
        """Add a point to the curve, and keep the weights if they are the best so far."""
        self.curve.append(CurvePoint(step=self.step, train_loss=self.mean_loss, validation_loss=validation_loss))
        self.recent_loss, self.recent_steps = 0.0, 0
        if validation_loss is None or not validation_loss < self.best_loss:
            self.unimproved += 1
            return
        self.best_loss, self.best_step, self.unimproved = validation_loss, self.step, 0
        self.best = {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def save(self, folder: Path) -> None:
        """Commit a checkpoint."""
        tensors: dict[str, Tensor] = {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        for name, parameter in self.trained.items():
            tensors[f"weights.{name}"] = parameter
            tensors |= {f"optimiser.{key}.{name}": value for key, value in self.optimiser.state[parameter].items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        state = {
            "step": self.step,
            "curve": [[p.step, p.train_loss, p.validation_loss] for p in self.curve],
            "best_loss": self.best_loss if self.best else None,
            "best_step": self.best_step,
            "unimproved": self.unimproved,
            "recent_loss": self.recent_loss,
            "recent_steps": self.recent_steps,
            "first_loss": self.first_loss,
            "num_clipped": self.num_clipped,
            "epoch": self.cursor.epoch,
            "place": self.cursor.place,
        }
        write_checkpoint(folder, step=self.step, state=state, tensors=tensors)

    @classmethod
    def resume(
        cls, folder: Path, *, trained: Mapping[str, nn.Parameter], optimiser: torch.optim.AdamW, epochs: Epochs
    ) -> Position:
        """The start, or where the newest whole checkpoint of a folder stands: weights, moments, random state and all."""
        checkpoint = newest_checkpoint(folder)
        if checkpoint is None:
            return cls(trained=trained, optimiser=optimiser, cursor=Cursor(epochs))
        state, tensors = checkpoint
        load_weights(trained, {name: tensors[f"weights.{name}"] for name in trained})
        for name, parameter in trained.items():
            prefixes = {key: f"optimiser.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
            optimiser.state[parameter] = {
                key: tensors[full].to(parameter.device) for key, full in prefixes.items() if full in tensors
            }
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return cls(
            trained=trained,
            optimiser=optimiser,
            cursor=Cursor(epochs, epoch=state["epoch"], place=state["place"]),
            step=state["step"],
            curve=[CurvePoint(step=s, train_loss=t, validation_loss=v) for s, t, v in state["curve"]],
            best={n: tensors[f"best.{n}"].to(p.device) for n, p in trained.items() if f"best.{n}" in tensors},
            best_loss=math.inf if state["best_loss"] is None else state["best_loss"],
            best_step=state["best_step"],
            unimproved=state["unimproved"],
            recent_loss=state["recent_loss"],
            recent_steps=state["recent_steps"],
            first_loss=state["first_loss"],
            num_clipped=state["num_clipped"],
        )


@torch.no_grad()
def load_weights(trained: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Copy tensors into parameters of the same name."""
    for name, tensor in weights.items():
        trained[name].copy_(tensor)
