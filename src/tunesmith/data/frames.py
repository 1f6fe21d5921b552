"""What many rows of a source say word for word: a system prompt, an instruction, a greeting. It tells no two rows apart.

Compared with it, short questions under a long prompt would all be near-duplicates of each other, and cleaning would leave one of them.
So rows are compared without their source's `instruction`, without sentences of system messages that a twentieth of their source's rows
share, and without lines of the first question that half of them share. Where nothing would be left of a question, all of it is compared.
What is left of a system message is what its row is about, such as a document. A body that fewer rows repeat under other greetings is a
near-duplicate and stays one.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

import xxhash

from tunesmith.records import Record, Role

__all__ = ["contents", "frames_of", "opening"]

_SHARES = {"system": 0.05, "line": 0.5, "greeting": 0.05}
_FEWEST = 5
"""Rows that share a frame, at least."""
_MOST_LINES = 64
"""Of a question, from its beginning, that may be frames."""
_GREETING = 40
"""Characters of a first message that may be one."""
_SENTENCE_ENDS = re.compile(r"\s*\n\s*|(?<=[.!?])\s+|(?<=[。！？])")


def frames_of(records: Iterable[Record]) -> frozenset[int]:
    """Hashes of the sentences, lines and greetings that so many rows of one source share; the rows are walked once."""
    import numpy as np

    num_rows: dict[int, int] = {}
    found: dict[tuple[int, str], array[int]] = {}
    for record in records:
        num_rows[record.origin] = num_rows.get(record.origin, 0) + 1
        for kind, hashed in set(_units(record)):
            found.setdefault((record.origin, kind), array("Q")).append(hashed)
    frames: set[int] = set()
    for (origin, kind), hashes in found.items():
        different, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
        frames.update(different[counts >= max(_SHARES[kind] * num_rows[origin], _FEWEST)].tolist())
    return frozenset(frames)


def contents(record: Record, *, frames: Collection[int] = ()) -> Iterator[tuple[Role, str]]:
    """Who says what in a conversation, frames left out.

    Args:
        record: a row with messages.
        frames: of `frames_of`.
    """
    is_first = True
    for message in record.messages:
        content = message.content
        if message.role is Role.SYSTEM and frames:
            content = "\n".join(each for each, hashed in _sentences(content) if hashed not in frames)
            if not content.strip():
                continue
        elif is_first and message.role is Role.USER:
            is_first = False
            content = _question(record, content, frames=frames)
        yield message.role, content


def opening(record: Record, *, frames: Collection[int]) -> str | None:
    """What a conversation begins with, by which its rows are tied: what it is about and its first question, a greeting passed over.

    Returns:
        None where no user speaks.
    """
    said = list(contents(record, frames=frames))
    asked = [content for role, content in said if role is Role.USER]
    if not asked:
        return None
    num = 1
    while num < len(asked) and _hashed("greeting", asked[num - 1]) in frames:
        num += 1
    about = [content for role, content in said if role is Role.SYSTEM]
    return "\n".join([*about, *asked[:num]])


def _question(record: Record, content: str, *, frames: Collection[int]) -> str:
    question = content.removeprefix(record.instruction).lstrip() if record.instruction else content
    lines = _lines(question) if frames else []
    if len(lines) < 2:
        return question
    kept = [each for at, each in enumerate(lines) if at >= _MOST_LINES or _hashed("line", each) not in frames]
    return "\n".join(kept) if len(kept) < len(lines) and any(each.strip() for each in kept) else question


def _units(record: Record) -> Iterator[tuple[str, int]]:
    """Kinds and hashes of what may be a frame."""
    said = list(contents(record))
    asked = [content for role, content in said if role is Role.USER]
    for role, content in said:
        if role is Role.SYSTEM:
            yield from (("system", hashed) for _, hashed in _sentences(content))
    if asked and len(lines := _lines(asked[0])) > 1:
        yield from (("line", _hashed("line", each)) for each in lines[:_MOST_LINES])
    yield from (("greeting", _hashed("greeting", each)) for each in asked[:-1] if len(each) <= _GREETING)


@lru_cache(maxsize=256)
def _sentences(text: str) -> tuple[tuple[str, int], ...]:
    """Sentences and lines of a system message, each with its hash. Most rows have the same message as the row before."""
    return tuple((each, _hashed("system", each)) for each in _SENTENCE_ENDS.split(text) if each.strip())


def _lines(text: str) -> list[str]:
    return [each for each in text.split("\n") if each.strip()]


def _hashed(kind: str, text: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{kind}:{' '.join(text.casefold().split())}".encode("utf-8", "surrogatepass"))
