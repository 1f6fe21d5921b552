"""The data sets, as conversations of one question and one answer, and which rows are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.training.rows import Chat, as_chat, draw, read_gz

__all__ = ["SETS", "DataSet", "read_set"]


class DataSet(NamedTuple):
    """Where a set lies, and how its rows are read."""

    file: str
    """Below the folder of the development data."""
    question: Callable[[Mapping[str, Any]], str]
    answer: Callable[[Mapping[str, Any]], str]
    is_held_out: Callable[[Mapping[str, Any]], bool]


def _is_one_in_five(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0


SETS = {
    "bitext": DataSet(
        file="retail/bitext_customer_support.jsonl.gz",
        question=lambda row: row["instruction"],
        answer=lambda row: row["response"],
        is_held_out=lambda row: _is_one_in_five(row["response"]),  # many questions share an answer: all of them go the same way
    ),
    "fairytaleqa": DataSet(
        file="qa/fairytaleqa.jsonl.gz",
        question=lambda row: f"{row['context']}\n\n{row['question']}",
        answer=lambda row: row["answers"][0],
        is_held_out=lambda row: row["split"] == "val",  # other tales
    ),
    "scitldr": DataSet(
        file="summarization/scitldr.jsonl.gz",
        question=lambda row: row["document"],
        answer=lambda row: row["summaries"][0],
        is_held_out=lambda row: row["split"] == "dev",  # other papers
    ),
}


def read_set(name: str, *, data: Path) -> tuple[list[Chat], list[Chat]]:
    """Rows to train on and rows held out, each in an order drawn from the content, so that the first n are a sample.

    Raises:
        SystemExit: the file is not there.
    """
    dataset = SETS[name]
    if not (file := data / dataset.file).is_file():
        raise SystemExit(
            f"{file} is not there. The sets are public, and INDEX.md of the development data says where each comes from; put them "
            f"below one folder, as {', '.join(one.file for one in SETS.values())}, and name it with --data"
        )
    train: list[Chat] = []
    held_out: list[Chat] = []
    for row in read_gz(file):
        chat = as_chat([("user", dataset.question(row)), ("assistant", dataset.answer(row))])
        (held_out if dataset.is_held_out(row) else train).append(chat)
    return sorted(train, key=draw), sorted(held_out, key=draw)
