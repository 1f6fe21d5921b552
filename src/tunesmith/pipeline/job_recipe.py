"""From what a client of OpenAI's API asked for to a recipe of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from tunesmith.store import Store

__all__ = ["DEFAULT_EPOCHS", "RECIPE", "TRAINING", "VALIDATION", "write_recipe"]

RECIPE = "recipe.yaml"
TRAINING = "training.jsonl"
VALIDATION = "validation.jsonl"
DEFAULT_EPOCHS = 3
_AUTO = "auto"
_HELD_OUT = 0.1
"""Of the training rows, where the client gave none to validate on: without any the best step could not be told."""
_SAMPLED = 500
"""Rows whose mean length in tokens says how many tokens a batch of so many examples has."""


def write_recipe(folder: Path, request: Mapping[str, Any], *, store: Store) -> Path:
    """Compose the recipe of a job and keep it in the job's folder, or return the one that lies there.

    Args:
        folder: holds the job's rows already.
        request: as the job's row has it.
        store: the workspace.

    Raises:
        UserError: the base cannot be used.
    """
    path = folder / RECIPE
    if path.is_file():
        return path
    wanted = {name: value for name, value in request["hyperparameters"].items() if value not in (None, _AUTO)}
    train: dict[str, Any] = {"epochs": wanted.get("n_epochs", DEFAULT_EPOCHS), "seed": request["seed"]}
    if "batch_size" in wanted:
        train["batch_tokens"] = _batch_tokens(folder / TRAINING, num_rows=wanted["batch_size"], base=request["base"], store=store)
    if "learning_rate_multiplier" in wanted:
        train["learning_rate"] = min(1.0, wanted["learning_rate_multiplier"] * _usual_rate(request["base"], store=store))
    sources: list[dict[str, Any]] = [{"path": TRAINING, "format": "messages"}]
    held_out = _HELD_OUT
    if (folder / VALIDATION).is_file():
        sources[0]["split"], held_out = "train", 0.0
        sources.append({"path": VALIDATION, "format": "messages", "split": "validation"})
    recipe = {
        "name": request["name"],
        "base": request["base"],
        "data": {"sources": sources, "split": {"validation": held_out, "test": 0.0}},
        "train": train,
        "promote": "never",
    }
    half = path.with_suffix(".half")
    half.write_text(yaml.safe_dump(recipe, sort_keys=False))
    half.replace(path)
    return path


def _batch_tokens(rows: Path, *, num_rows: int, base: str, store: Store) -> int:
    """Tokens of so many rows of usual length."""
    from itertools import islice

    from tunesmith.data import SourceConfig, read
    from tunesmith.data.chat import ChatFormat
    from tunesmith.data.pack import encode
    from tunesmith.pipeline.versions import find_base
    from tunesmith.records import Record

    chat = ChatFormat.load(find_base(base, folder=rows.parent, store=store).path)
    reading = read(SourceConfig(path=rows.name, format="messages"), folder=rows.parent)
    some = [row for row in islice(reading.rows, _SAMPLED) if isinstance(row, Record)]
    num_tokens = sum(len(sequence.tokens) for sequence in encode(some, chat=chat, max_length=1 << 20).sequences)
    return max(16, round(num_rows * num_tokens / max(1, len(some))))


def _usual_rate(base: str, *, store: Store) -> float:
    """The learning rate that a recipe without one would take (docs/design/learning-rate.md)."""
    from tunesmith.pipeline.versions import find_base
    from tunesmith.train import TrainConfig
    from tunesmith.train.methods import METHODS
    from tunesmith.train.schedule import default_learning_rate

    config = TrainConfig()
    shape = orjson.loads((find_base(base, folder=Path(), store=store).path / "config.json").read_bytes())
    width = int(shape.get("hidden_size") or shape.get("n_embd") or 2000)
    return default_learning_rate(hidden_size=width, from_scratch=False) * METHODS[config.method].rate_factor(config)
