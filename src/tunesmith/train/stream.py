"""Which batch comes at which step: a pure function of seed and step, so that a resumed run needs no replay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tunesmith.records import TokenBatch
from tunesmith.train.config import TrainConfig

__all__ = ["Cursor", "Epochs", "count_steps", "pass_tokens", "passes_per_step"]

Epochs = Callable[[int], Sequence[TokenBatch]]
"""From the number of an epoch to its batches, in order; they may be made as they are taken."""


def pass_tokens(config: TrainConfig, *, longest: int) -> int:
    """Tokens in one forward pass; never less than the longest row."""
    return max(min(config.micro_batch_tokens or config.batch_tokens, config.batch_tokens), longest)


def passes_per_step(config: TrainConfig, *, tokens: int) -> int:
    """Forward passes of so many tokens in one optimiser step, which together come to `batch_tokens`."""
    return math.ceil(config.batch_tokens / tokens)


def count_steps(num_batches: int, *, batches_per_step: int, config: TrainConfig) -> int:
    """Optimiser steps in the whole run; a step may reach from one epoch into the next.

    Args:
        num_batches: in one epoch.
        batches_per_step: see `passes_per_step`.
        config: asked for epochs and max_steps.
    """
    steps = max(1, math.ceil(num_batches * config.epochs / batches_per_step - 1e-9))
    return min(steps, config.max_steps or steps)


class Cursor:
    """A place in the endless sequence of epochs. `epoch` and `place` are all there is to keep."""

    def __init__(self, epochs: Epochs, *, epoch: int = 0, place: int = 0) -> None:
        self._epochs = epochs
        self.epoch = epoch
        self.place = place
        self._batches: Sequence[TokenBatch] | None = None

    def take(self, count: int) -> list[TokenBatch]:
        """The next `count` batches, across the border of epochs where need be."""
        taken: list[TokenBatch] = []
        while len(taken) < count:
            if self._batches is None:
                self._batches = self._epochs(self.epoch)
            if self.place >= len(self._batches):
                self.epoch, self.place, self._batches = self.epoch + 1, 0, None
                continue
            taken.append(self._batches[self.place])
            self.place += 1
        return taken
