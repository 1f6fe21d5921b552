"""What many rows of a source say word for word: a system prompt, an instruction, a greeting. It tells no two rows apart.

Compared with it, short questions under a long prompt would all be near-duplicates of each other, and cleaning would leave one of them.
So rows are compared without their source's `instruction`, without sentences of system messages that a twentieth of their source's rows
share, and without lines of the first question that half of them share, or sentences at the edges of its first and last line, where a
colon ends one too (`Translate: Run!`). Where nothing would be left of a question, all of it is compared.
What is left of a system message is what its row is about, such as a document. A body that fewer rows repeat under other greetings is a
near-duplicate and stays one.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

import xxhash

from tunesmith.records import Record, Role

__all__ = ["contents", "frames_of", "opening"]

_SHARES = {"system": 0.05, "asked": 0.5, "greeting": 0.05}
_FEWEST = 5
"""Rows that share a frame, at least."""
_LINES = (64, 16)
"""Of a question, at its beginning and at its end, that may be frames."""
_SENTENCES = (8, 4)
"""Of its first line and of its last one."""
_GREETING = 40
"""Characters of a first message that may be one."""
_SENTENCE_ENDS = re.compile(r"\s*\n\s*|(?<=[.!?])\s+|(?<=[。！？])")
_PART_ENDS = re.compile(r"(?<=[:.!?])\s+|(?<=[：。！？])")


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
    kept: list[str] = []
    for at, line in enumerate(lines):
        if len(lines) > 1 and at in _at_edges(lines, _LINES) and _hashed("asked", line) in frames:
            continue
        own = _without_shared(line, frames) if at in {0, len(lines) - 1} else line
        kept += [own] * bool(own)
    return "\n".join(kept) if kept and kept != lines else question


def _without_shared(line: str, frames: Collection[int]) -> str:
    parts = _parts(line)
    if len(parts) < 2:
        return line
    kept = [
        each for at, each in enumerate(parts) if at not in _at_edges(parts, _SENTENCES) or _hashed("asked", each) not in frames
    ]
    return line if len(kept) == len(parts) else " ".join(kept)


def _units(record: Record) -> Iterator[tuple[str, int]]:
    """Kinds and hashes of what may be a frame."""
    said = list(contents(record))
    asked = [content for role, content in said if role is Role.USER]
    for role, content in said:
        if role is Role.SYSTEM:
            yield from (("system", hashed) for _, hashed in _sentences(content))
    if asked:
        yield from (("asked", _hashed("asked", each)) for each in _may_be_shared(asked[0]))
    yield from (("greeting", _hashed("greeting", each)) for each in asked[:-1] if len(each) <= _GREETING)


@lru_cache(maxsize=256)
def _sentences(text: str) -> tuple[tuple[str, int], ...]:
    """Sentences and lines of a system message, each with its hash. Most rows have the same message as the row before."""
    return tuple((each, _hashed("system", each)) for each in _SENTENCE_ENDS.split(text) if each.strip())


def _may_be_shared(question: str) -> Iterator[str]:
    lines = _lines(question)
    if len(lines) > 1:
        yield from (lines[at] for at in _at_edges(lines, _LINES))
    for line in {*lines[:1], *lines[-1:]}:
        parts = _parts(line)
        if len(parts) > 1:
            yield from (parts[at] for at in _at_edges(parts, _SENTENCES))


def _lines(text: str) -> list[str]:
    return [each for each in text.split("\n") if each.strip()]


def _parts(line: str) -> list[str]:
    return [each for each in _PART_ENDS.split(line) if each.strip()]


def _at_edges(units: Sequence[str], edges: tuple[int, int]) -> Collection[int]:
    first, last = edges
    return range(len(units)) if len(units) <= first + last else {*range(first), *range(len(units) - last, len(units))}


def _hashed(kind: str, text: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{kind}:{' '.join(text.casefold().split())}".encode("utf-8", "surrogatepass"))
