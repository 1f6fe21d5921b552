"""What every side is given: a model folder that all can load, training rows as text, and held-out rows as tokens."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.training.rows import Chat, default_chats, read_chats

__all__ = ["MAX_LENGTH", "SHAPES", "STEP_TOKENS", "Task", "make_task"]

MAX_LENGTH = STEP_TOKENS = 1024
"""Longest row, and tokens in an optimiser step."""
_NUM_HELD_OUT = {"S": 64, "M": 16}

SHAPES: dict[str, dict[str, int]] = {
    "S": {
        "vocab_size": 8192,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "M": {  # SmolLM2-135M's
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}

# ChatML without the line break between turns, which half of the peers would learn and half would not.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One comparison's input. `digest` covers shape, rows and template."""

    folder: Path
    size: str
    digest: str
    num_rows: int
    num_tokens: int
    num_supervised: int
    """Tokens of the answers, each with its end-of-turn token."""
    lengths: tuple[int, ...]
    """Tokens of each training row."""

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def rows(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def held_out(self) -> Path:
        return self.folder / "held_out.json"


def make_task(size: str, *, steps: int, rows: Path | None, cache: Path) -> Task:
    """Make the model and choose rows for so many steps, or find them as they were made before.

    Args:
        size: of the model.
        steps: optimiser steps that the training rows are to fill, in one pass.
        rows: a file with conversations; None: the default ones.
        cache: where tasks are kept.
    """
    # Rows have some 200 tokens: enough for the steps, for those held out, and for the tokenizer to learn from.
    chats = list(islice(read_chats(rows) if rows else default_chats(), 1000 + 10 * steps))
    key = json.dumps([SHAPES[size], steps, chats, Path(__file__).read_text()])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = cache / "tasks" / f"{size}-{steps}-{digest}"
    if not (folder / "task.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _make(folder, size=size, wanted_tokens=steps * STEP_TOKENS, chats=chats)
    facts = json.loads((folder / "task.json").read_text())
    return Task(folder=folder, size=size, digest=digest, **{**facts, "lengths": tuple(facts["lengths"])})


def _make(folder: Path, *, size: str, wanted_tokens: int, chats: Sequence[Chat]) -> None:
    held_out, train = choose_rows(
        chats, wanted_tokens=wanted_tokens, num_held_out=_NUM_HELD_OUT[size], tokenizer_folder=folder / "model"
    )
    (folder / "shape.json").write_text(json.dumps(SHAPES[size] | {"max_position_embeddings": 2 * MAX_LENGTH}))
    # In a process of its own: a child's peak memory is never less than its parent's, so this one stays small.
    maker = Path(__file__).with_name("model.py")
    subprocess.run(
        [sys.executable, str(maker), str(folder / "shape.json"), str(folder / "model")], check=True, stderr=subprocess.DEVNULL
    )
    (folder / "train.jsonl").write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in train))
    (folder / "held_out.json").write_text(json.dumps([{key: row[key] for key in ("tokens", "supervised")} for row in held_out]))
    facts = {
        "num_rows": len(train),
        "num_tokens": sum(len(row["tokens"]) for row in train),
        "num_supervised": sum(sum(row["supervised"]) for row in train),
        "lengths": [len(row["tokens"]) for row in train],
    }
    (folder / "task.json").write_text(json.dumps(facts))


def choose_rows(
    chats: Sequence[Chat], *, wanted_tokens: int, num_held_out: int, tokenizer_folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train the tokenizer on all chats, then take rows that fit: some to hold out, then so many tokens to train on."""
    from tokenizers import Tokenizer

    from tunesmith.data.tokenizer import train_tokenizer

    texts = [f"{message['role']}\n{message['content']}" for chat in chats for message in chat]
    # Also for M: this little text has no 49,152 merges in it, and the rest of that vocabulary is simply never used.
    train_tokenizer(texts, vocab_size=SHAPES["S"]["vocab_size"], folder=tokenizer_folder)
    (tokenizer_folder / "chat_template.jinja").write_text(TEMPLATE)
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    rows = [row for chat in chats if len((row := tokenise(chat, tokenizer))["tokens"]) <= MAX_LENGTH]
    held_out, train, num_tokens = rows[:num_held_out], [], 0
    for row in rows[num_held_out:]:
        if num_tokens >= wanted_tokens:
            break
        train.append(row)
        num_tokens += len(row["tokens"])
    if num_tokens < wanted_tokens:
        raise SystemExit(f"the rows hold {num_tokens} tokens beside those held out; {wanted_tokens} are needed. Lower --steps")
    return held_out, train


def tokenise(chat: Chat, tokenizer: Any) -> dict[str, Any]:
    """Tokens of a conversation and which of them are learned, told apart by construction; independent of tunesmith's own road."""
    tokens: list[int] = []
    supervised: list[bool] = []
    for message in chat:
        opening = tokenizer.encode(f"<|im_start|>{message['role']}\n", add_special_tokens=False).ids
        content = tokenizer.encode(f"{message['content']}<|im_end|>", add_special_tokens=False).ids
        tokens += opening + content
        supervised += [False] * len(opening) + [message["role"] == "assistant"] * len(content)
    return {"messages": chat, "tokens": tokens, "supervised": supervised}
