"""The state of every generator of random numbers that a training step may draw from, as JSON and tensors.

The order of rows is no part of it: that is a function of seed and epoch (`stream.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_random_state", "random_state", "set_random_state"]


def random_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Python's, numpy's and torch's global generators, and that of every GPU."""
    version, words, gauss = random.getstate()
    arrays: Any = np.random.get_state(legacy=False)
    arrays["state"]["key"] = arrays["state"]["key"].tolist()
    tensors = {"random.cpu": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        tensors[f"random.cuda.{index}"] = torch.cuda.get_rng_state(index)
    return {"python": [version, list(words), gauss], "numpy": arrays}, tensors


def set_random_state(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put every generator back where `random_state` found it. GPUs that are not here any more are left out."""
    _set(random, np.random, torch.default_generator, state=state, tensors=tensors)
    for index in range(torch.cuda.device_count()):
        if (saved := tensors.get(f"random.cuda.{index}")) is not None:
            torch.cuda.set_rng_state(saved, index)


def check_random_state(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Try a state on generators of no importance.

    Raises:
        LookupError, RuntimeError, TypeError, ValueError: it is not what `random_state` gives here.
    """
    _set(random.Random(), np.random.RandomState(), torch.Generator(), state=state, tensors=tensors)  # noqa: S311


def _set(
    python: Any, arrays: Any, generator: torch.Generator, *, state: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    version, words, gauss = state["python"]
    python.setstate((version, tuple(words), gauss))
    arrays.set_state(state["numpy"])
    generator.set_state(tensors["random.cpu"])
