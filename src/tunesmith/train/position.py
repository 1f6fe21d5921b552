"""Where a run stands: all that changes from step to step, and its way into a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.records import CurvePoint
from tunesmith.train.checkpoint import Checkpoint, Checkpoints
from tunesmith.train.randomness import check_random_state, random_state, set_random_state
from tunesmith.train.stream import Cursor, Epochs

__all__ = ["Position", "load_weights"]

_WHOLE = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"})
"""What AdamW and Muon keep of a parameter."""


@dataclass(slots=True)
class Position:
    """A place in a run. `trained` and `optimiser` are the run's own, changed in place."""

    trained: Mapping[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    cursor: Cursor
    checkpoints: Checkpoints
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
        if self.best:
            self.checkpoints.reclaim()
            load_weights(self.best, self.trained)
        else:
            self.best = {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def save(self) -> None:
        """Begin to write a checkpoint; weights and moments may not change before it is reclaimed."""
        randomness, tensors = random_state()
        for name, parameter in self.trained.items():
            tensors[f"weights.{name}"] = parameter
            tensors |= {f"optimiser.{key}.{name}": value for key, value in self.optimiser.state[parameter].items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        state = {
            "step": self.step,
            "curve": [[p.step, _spelled(p.train_loss), _spelled(p.validation_loss)] for p in self.curve],
            "best_loss": _spelled(self.best_loss),
            "best_step": self.best_step,
            "unimproved": self.unimproved,
            "recent_loss": self.recent_loss,
            "recent_steps": self.recent_steps,
            "first_loss": _spelled(self.first_loss),
            "num_clipped": self.num_clipped,
            "epoch": self.cursor.epoch,
            "place": self.cursor.place,
            "random": randomness,
        }
        self.checkpoints.write(step=self.step, state=state, tensors=tensors)

    @classmethod
    def resume(
        cls, checkpoints: Checkpoints, *, trained: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, epochs: Epochs
    ) -> Position:
        """The start, or where the run's newest whole checkpoint stands: weights, moments, random state and all."""
        here = cls(trained=trained, optimiser=optimiser, cursor=Cursor(epochs), checkpoints=checkpoints)
        checkpoint = checkpoints.newest(check=lambda found: _check(found, trained=trained))
        if checkpoint is None:
            return here
        state, tensors = checkpoint
        for name, value in _counts(state).items():
            setattr(here, name, value)
        here.cursor = Cursor(epochs, epoch=state["epoch"], place=state["place"])
        load_weights(trained, _below("weights.", tensors))
        here.best = {name: tensor.to(trained[name].device) for name, tensor in _below("best.", tensors).items()}
        for path, tensor in _below("optimiser.", tensors).items():
            key, _, name = path.partition(".")
            optimiser.state[trained[name]][key] = tensor.to(trained[name].device)
        set_random_state(state["random"], tensors)
        return here


def _check(checkpoint: Checkpoint, *, trained: Mapping[str, nn.Parameter]) -> None:
    """Refuse, before anything is changed, what another model or another version of tunesmith has written."""
    state, tensors = checkpoint
    _counts(state)
    index(state["epoch"]), index(state["place"])
    check_random_state(state["random"], tensors)
    shapes = {name: parameter.shape for name, parameter in trained.items()}
    saved, best = _below("weights.", tensors), _below("best.", tensors)
    for weights in (saved, best) if best else (saved,):
        if {name: tensor.shape for name, tensor in weights.items()} != shapes:
            raise ValueError("its weights have other names or shapes than the model's")
    kept: dict[str, set[str]] = {}
    for path, tensor in _below("optimiser.", tensors).items():
        key, _, name = path.partition(".")
        kept.setdefault(name, set()).add(key)
        if tensor.ndim and tensor.shape != shapes[name]:
            raise ValueError(f"the optimiser's state of {name} has the shape {list(tensor.shape)}, not {list(shapes[name])}")
    if any(keys not in _WHOLE for keys in kept.values()):
        raise ValueError("the optimiser's state is not complete")


def _counts(state: Mapping[str, Any]) -> dict[str, Any]:
    """The plain fields of a position."""
    return {
        "step": index(state["step"]),
        "curve": [CurvePoint(step=index(s), train_loss=float(t), validation_loss=_parsed(v)) for s, t, v in state["curve"]],
        "best_loss": float(state["best_loss"]),
        "best_step": index(state["best_step"]),
        "unimproved": index(state["unimproved"]),
        "recent_loss": float(state["recent_loss"]),
        "recent_steps": index(state["recent_steps"]),
        "first_loss": float(state["first_loss"]),
        "num_clipped": index(state["num_clipped"]),
    }


def _spelled(loss: float | None) -> float | str | None:
    """JSON has no word for infinity and for what is no number."""
    return loss if loss is None or math.isfinite(loss) else str(loss)


def _parsed(loss: float | str | None) -> float | None:
    return None if loss is None else float(loss)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def load_weights(into: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy tensors into those of the same name."""
    for name, tensor in weights.items():
        into[name].copy_(tensor)
