"""Learning rates: the default peak by rule, and the pace of each step: its rate and its momentum.

Everything here is a pure function of the step, so a resumed run needs no state for it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tunesmith.train.config import TrainConfig

__all__ = ["Pace", "default_learning_rate", "learning_rate_at", "pace_at"]

_FLOOR = 0.1
"""Share of the peak at which `cosine`, `linear` and `wsd` end."""
_WARMUP, _WARMUP_ONE_CYCLE = 0.05, 0.3
_START, _END = 1 / 25, 1 / 25 / 1e4
"""Shares of the peak at which `one_cycle` starts and ends, as in PyTorch's OneCycleLR."""
_MOMENTUM_HIGH, _MOMENTUM_LOW = 0.95, 0.85


class Pace(NamedTuple):
    """How fast one step goes."""

    rate: float
    beta1: float


def default_learning_rate(*, hidden_size: int, from_scratch: bool) -> float:
    """The peak learning rate of full training when the recipe names none; a method multiplies it.

    Full fine-tuning of a Llama-shaped model does best near 5e-5 x (2000 / width)^0.78 (Schulman et al. 2025, "LoRA Without
    Regret"). From scratch the rate is larger and falls with the square root of the width.

    Args:
        hidden_size: width of the model's residual stream.
        from_scratch: whether the weights are random.
    """
    if from_scratch:
        return min(3e-3, 3e-3 * math.sqrt(256 / hidden_size))
    rate: float = 5e-5 * (2000 / hidden_size) ** 0.78
    return rate


def pace_at(step: int, *, total_steps: int, peak: float, config: TrainConfig) -> Pace:
    """Learning rate and momentum of optimiser step `step`, counted from 0.

    `one_cycle` lowers the momentum while the rate rises, and raises it again (Smith 2018, section 4.3); for AdamW that is
    beta1, as in PyTorch and fastai.
    """
    rate = learning_rate_at(step, total_steps=total_steps, peak=peak, config=config)
    if config.schedule != "one_cycle":
        return Pace(rate, config.optimiser.beta1)
    risen, fallen = _progress(step, total_steps=total_steps, config=config)
    if fallen:
        return Pace(rate, _along_cosine(_MOMENTUM_LOW, _MOMENTUM_HIGH, fallen))
    return Pace(rate, _along_cosine(_MOMENTUM_HIGH, _MOMENTUM_LOW, risen))


def learning_rate_at(step: int, *, total_steps: int, peak: float, config: TrainConfig) -> float:
    """Learning rate of optimiser step `step`, counted from 0.

    The warm-up is linear, and its last step has the peak. Then `cosine` (Loshchilov and Hutter 2017) and `linear` fall to a tenth
    of the peak on the last step. `wsd` (Hu et al. 2024, arXiv 2404.06395) stays there, and falls to a tenth at the end along
    1 - sqrt, which Haegele et al. 2024 (arXiv 2405.18392) found better than a straight line. `one_cycle` (Smith 2018, arXiv
    1803.09820) rises along half a cosine from a 25th of the peak, and falls along another to a 250,000th.
    """
    risen, fallen = _progress(step, total_steps=total_steps, config=config)
    if config.schedule == "one_cycle":
        return peak * (_along_cosine(1.0, _END, fallen) if fallen else _along_cosine(_START, 1.0, risen))
    if not fallen:
        warmup = _warmup_steps(config, total_steps=total_steps)
        return peak * (step + 1) / warmup if step < warmup else peak
    left = {
        "constant": lambda: 1.0,
        "linear": lambda: 1 - fallen,
        "cosine": lambda: _along_cosine(1.0, 0.0, fallen),
        "wsd": lambda: 1 - math.sqrt(fallen),
    }[config.schedule]()
    return peak * (_FLOOR + (1 - _FLOOR) * left)


def _progress(step: int, *, total_steps: int, config: TrainConfig) -> tuple[float, float]:
    """Shares of the rise and of the fall that are done: 0 of the rise on step 0, all of the fall on the last step.

    A run of one step is all peak; in a longer one at least the last step falls.
    """
    last = total_steps - 1
    top = max(_warmup_steps(config, total_steps=total_steps) - 1, 0)
    risen = min(step / top, 1.0) if top else 1.0
    if config.schedule == "wsd":
        top = max(top, last - _ceil(config.optimiser.decay * total_steps))
    return risen, (step - top) / (last - top) if step > top else 0.0


def _warmup_steps(config: TrainConfig, *, total_steps: int) -> int:
    """Steps of the rise, the one with the peak included."""
    share = config.warmup
    if share is None:
        share = _WARMUP_ONE_CYCLE if config.schedule == "one_cycle" else _WARMUP
    return min(_ceil(share * total_steps), total_steps - 1)


def _along_cosine(start: float, end: float, done: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def _ceil(steps: float) -> int:
    """Rounded up, but not for the last bit of a product: 0.07 x 100 are 7 steps."""
    return math.ceil(steps - 1e-9)
