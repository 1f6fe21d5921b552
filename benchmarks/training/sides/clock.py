"""What the sides do alike, whatever environment they run in: read their orders, note when steps end, report what is saved."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


class Clock:
    """One run's orders and notes. `supervised` counts the targets of the batches that were really trained."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.step_ends: list[float] = []
        self.supervised = 0

    @classmethod
    def start(cls) -> Clock:
        """Read the orders that the command line names."""
        return cls(json.loads(Path(sys.argv[1]).read_text()))

    def step(self) -> None:
        """An optimiser step is done."""
        self.step_ends.append(time.monotonic())

    def saved(self, **facts: object) -> None:
        """Everything is on disk. Called before anything else that takes time."""
        report = {"saved_at": time.monotonic(), "num_steps": len(self.step_ends), "supervised": self.supervised, **facts}
        report["steady_s"] = self.step_ends[-1] - self.step_ends[0]
        Path(self.orders["report"]).write_text(json.dumps(report))


def watch_trainer(clock: Clock) -> Any:
    """Count the targets of every batch that transformers' Trainer trains; returns the callback that notes the steps."""
    from transformers import Trainer, TrainerCallback

    training_step = Trainer.training_step

    def counted(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        clock.supervised += int((inputs["labels"] != -100).sum())
        return training_step(self, model, inputs, *args, **kwargs)

    Trainer.training_step = counted

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    return Steps()
