"""What both sides are given of a set: rows that fit into the base's context, some to train on and others held out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.plain import Row, tokenise
from benchmarks.training.rows import Chat

__all__ = ["NUM_HELD_OUT", "STEP_TOKENS", "Task", "make_task"]

STEP_TOKENS = 2048
"""Tokens of an optimiser step: what a recipe has that says nothing of it."""
NUM_HELD_OUT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One set's rows. Training rows lie in `folder` as text, held-out rows as tokens."""

    folder: Path
    base: Path
    max_length: int
    num_rows: int
    num_tokens: int
    num_supervised: int
    """Targets of one pass over the training rows, as plain transformers counts them."""
    num_too_long: int
    """Rows that were left out because the base cannot read so much."""

    @property
    def rows(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def held_out(self) -> Path:
        return self.folder / "held_out.json"


def make_task(
    train: Sequence[Chat],
    held_out: Sequence[Chat],
    *,
    base: Path,
    folder: Path,
    num_tokens: int = sys.maxsize,
    num_rows: int | None = None,
) -> Task:
    """Choose rows and write them down.

    Args:
        train: rows to train on, in an order of which every beginning is a sample.
        held_out: rows to judge by, likewise; the first that fit are taken.
        base: the model's folder.
        folder: where to write; made if it is not there.
        num_tokens: training rows are taken until they have so many tokens.
        num_rows: and no more than so many. None: all.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    max_length: int = json.loads((base / "config.json").read_text())["max_position_embeddings"]
    fitting = [(chat, row) for chat, row in zip(train, tokenise(train, tokenizer), strict=True) if len(row.tokens) <= max_length]
    chosen: list[tuple[Chat, Row]] = []
    size = 0
    for chat, row in fitting[:num_rows]:
        if size >= num_tokens:
            break
        chosen.append((chat, row))
        size += len(row.tokens)
    judged = [row for row in tokenise(held_out, tokenizer) if len(row.tokens) <= max_length]
    task = Task(
        folder=folder,
        base=base,
        max_length=max_length,
        num_rows=len(chosen),
        num_tokens=size,
        num_supervised=sum(row.num_supervised for _, row in chosen),
        num_too_long=len(train) + len(held_out) - len(fitting) - len(judged),
    )
    folder.mkdir(parents=True, exist_ok=True)
    task.rows.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat, _ in chosen))
    task.held_out.write_text(json.dumps([_for_the_judge(row) for row in judged[:NUM_HELD_OUT]]))
    return task


def _for_the_judge(row: Row) -> dict[str, list[int] | list[bool]]:
    num_read = len(row.tokens) - row.num_supervised
    return {"tokens": row.tokens, "supervised": [False] * num_read + [True] * row.num_supervised}
