"""Learning rates: the default peak by rule, and its course over the run."""

from __future__ import annotations

import math

from tunesmith.train.config import TrainConfig

__all__ = ["default_learning_rate", "learning_rate_at"]


def default_learning_rate(config: TrainConfig, *, hidden_size: int, from_scratch: bool) -> float:
    """The peak learning rate when the recipe names none.

    Full fine-tuning of a Llama-shaped model does best near 5e-5 x (2000 / width)^0.78, adapters at ten times that, nearly
    whatever their rank (Schulman et al. 2025, "LoRA Without Regret"). From scratch the rate is larger and falls with the
    square root of the width.

    Args:
        config: asked for the method.
        hidden_size: width of the model's residual stream.
        from_scratch: whether the weights are random.
    """
    if from_scratch:
        return min(3e-3, 3e-3 * math.sqrt(256 / hidden_size))
    full: float = 5e-5 * (2000 / hidden_size) ** 0.78
    return full * 10 if config.method == "lora" else full


def learning_rate_at(step: int, *, total_steps: int, peak: float, config: TrainConfig) -> float:
    """Learning rate of optimiser step `step`, counted from 0: a linear warm-up, then the schedule's fall.

    `cosine` and `linear` end at a tenth of the peak on the last step.
    """
    warmup_steps = min(math.ceil(config.warmup * total_steps), total_steps - 1)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if config.schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1)
    fall = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return peak * (0.1 + 0.9 * fall)
