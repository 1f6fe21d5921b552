"""The sides and their settings, fixed before any timed run. Why these: docs/design/training-benchmark.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ALLOCATORS", "LEARNING_RATES", "LORA", "OURS", "SIDES", "STEPS", "Side", "sides_of"]

OURS = "tunesmith"
LORA = {"rank": 16, "alpha": 32}
STEPS = {"S": 96, "M": 12}
LEARNING_RATES = {"lora": 2e-3, "full": 5e-4, "scratch": 1e-3}
"""Constant over the run, the same for every side."""

ALLOCATORS = {
    "own": {},
    # The three settings that tunesmith makes by mallopt(3) at its start, for everybody.
    "glibc": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(64 * 2**20)},
    "tcmalloc": {"TCMALLOC_AGGRESSIVE_DECOMMIT": "0"},
}
"""Environments. `own`: each side as it ships."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Who trains: a script in `sides/`, run by the Python of an environment in `venvs` (None: ours), with its own settings."""

    script: str
    venv: str | None
    is_tuned: bool
    settings: dict[str, Any]


SIDES = {
    OURS: Side(script="side_tunesmith.py", venv=None, is_tuned=True, settings={"batch_tokens": 1024}),
    # As it ships, but for what every side shares; the batch is set by the comparison so that the steps are as many.
    "trl_default": Side(script="side_trl.py", venv="trl", is_tuned=False, settings={"per_device_train_batch_size": None}),
    "trl": Side(
        script="side_trl.py",
        venv="trl",
        is_tuned=True,
        settings={"packing": True, "per_device_train_batch_size": 1, "gradient_checkpointing": False},
    ),
    "llamafactory": Side(
        script="side_llamafactory.py",
        venv="llamafactory",
        is_tuned=True,
        settings={
            "packing": True,
            "neat_packing": True,
            "flash_attn": "sdpa",
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "disable_gradient_checkpointing": True,
        },
    ),
    "torchtune": Side(
        script="side_torchtune.py",
        venv="torchtune",
        is_tuned=True,
        settings={
            "packed": True,
            "batch_size": 1,
            "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
            "compile": False,
            "enable_activation_checkpointing": False,
            "enable_activation_offloading": False,
        },
    ),
}


def sides_of(peers: list[str]) -> dict[str, Side]:
    """Our side and those of the named environments."""
    return {name: side for name, side in SIDES.items() if side.venv is None or side.venv in peers}
