"""The conversations that every side trains on, and others held out: the same on every machine, with a long tail of lengths."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["DATA", "Chat", "as_chat", "default_chats", "draw", "read_chats", "read_gz"]

Chat = list[dict[str, str]]
"""Messages with `role` and `content`."""

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
"""Where the development data lies beside the repository."""
_INSTRUCT = DATA / "instruct"
_BOUTIQUE = ROOT / "examples" / "boutique" / "conversations.jsonl"
_MARK = "### Instruction:\n"
_MIN_ANSWERED = 0.08
"""Smallest share of a conversation's characters that are answers."""


def default_chats(instruct: Path = _INSTRUCT) -> Iterator[Chat]:
    """Instruction rows where the development data lies beside the repository, else the shop's conversations joined.

    In an order drawn from the content, so that taking the first n is a sample. Rows that are nearly all question are left out:
    with three tokens of five supervised, as instruction sets commonly have, no side profits much from skipping the others.
    """
    if (instruct / "dolly_hhrlhf_small.jsonl.gz").is_file():
        return iter(sorted((chat for chat in _instructions(instruct) if _share_answered(chat) > _MIN_ANSWERED), key=draw))
    return _joined_turns(read_chats(_BOUTIQUE))


def read_chats(file: Path) -> list[Chat]:
    """The conversations of a JSONL file with `messages`, stripped of blanks at the ends, where tokenizers of the peers differ.

    Raises:
        SystemExit: a line has none.
    """
    chats = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                messages = json.loads(line)["messages"]
                chats.append(as_chat((message["role"], message["content"]) for message in messages))
            except (ValueError, KeyError, TypeError) as error:
                raise SystemExit(
                    f"{file}:{number}: no conversation ({type(error).__name__}: {error}); it needs `messages`"
                ) from error
    return chats


def _instructions(folder: Path) -> Iterator[Chat]:
    for row in read_gz(folder / "dolly_hhrlhf_small.jsonl.gz"):
        question = row["prompt"].partition(_MARK)[2].partition("\n\n### Response:")[0]
        yield as_chat([("user", question), ("assistant", row["response"])])
    for row in read_gz(folder / "oasst_en_100_trees.jsonl.gz"):
        yield as_chat(_best_path(row["prompt"]))


def _best_path(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """One conversation of a tree: the best-ranked reply each time, up to the last answer."""
    path = []
    while node:
        path.append(({"prompter": "user"}.get(node["role"], node["role"]), node["text"]))
        node = min(node["replies"], key=lambda reply: (reply.get("rank") or 0, reply["message_id"]), default={})
    if path[-1][0] == "user":
        path.pop()
    return iter(path)


def _joined_turns(chats: list[Chat]) -> Iterator[Chat]:
    """Longer conversations out of short ones, with lengths as skewed as instruction rows have (log-normal, in characters).

    Endless: once all chats are used, they are joined anew in another order.
    """
    draw = random.Random(0)
    rest: list[Chat] = []
    while True:
        wanted = math.exp(draw.gauss(6.05, 0.9))
        joined: Chat = []
        while sum(len(message["content"]) for message in joined) < wanted:
            rest = rest or draw.sample(chats, k=len(chats))
            joined = joined + rest.pop()
        yield joined


def _share_answered(chat: Chat) -> float:
    answered = sum(len(message["content"]) for message in chat if message["role"] == "assistant")
    return answered / max(sum(len(message["content"]) for message in chat), 1)


def as_chat(turns: Iterable[tuple[str, str]]) -> Chat:
    """Roles and contents to messages; stripped of blanks at the ends, where tokenizers differ."""
    return [{"role": role, "content": content.strip()} for role, content in turns]


def draw(chat: Chat) -> str:
    """The key of a conversation's place in a random order that is the same on every machine."""
    return hashlib.sha256(json.dumps(chat).encode()).hexdigest()


def read_gz(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped JSONL file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
