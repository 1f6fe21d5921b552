"""The same question with different answers: found and counted, and dropped only if a setting says so.

Often it is a mistake; in a dictionary or among free answers it is the very point, so by default nothing is dropped. Questions
and answers are compared without regard to case, punctuation and spaces. Of a labelled text the label is the answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.data.clean.step import Noted, Outcome, Step, Whole
from tunesmith.data.clean_config import ConflictSettings
from tunesmith.records import Dropped, Record, Role, Source

__all__ = ["build"]

_NOT_WORDS = re.compile(r"[\W_]+")


def build(settings: ConflictSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it reads every row before its first outcome."""
    drop = (settings or ConflictSettings()).drop

    def judge(rows: Sequence[Record]) -> Iterator[Outcome]:
        first: dict[bytes, tuple[bytes, Source]] = {}
        other: dict[bytes, Source] = {}
        keys = [_question_and_answer(record) for record in rows]
        for record, key in zip(rows, keys, strict=True):
            if key is not None:
                question, answer = key
                if first.setdefault(question, (answer, record.source))[0] != answer:
                    other.setdefault(question, record.source)
        for record, key in zip(rows, keys, strict=True):
            if key is None or key[0] not in other:
                yield None
                continue
            answer, source = first[key[0]]
            is_later = key[1] != answer
            detail = f"asked at {source if is_later else other[key[0]]} too, with another answer"
            if drop == "all" or (drop == "later" and is_later):
                yield Dropped(source=record.source, reason="conflicting_answer", detail=detail)
            else:
                yield Noted(None, ("conflicting_answer",), detail)

    return Whole(judge)


def _question_and_answer(record: Record) -> tuple[bytes, bytes] | None:
    """Digests of what is asked and of what is answered; None where there is no answer to compare."""
    if record.text is not None:
        return (_digest(record.text), _digest(record.label)) if record.label else None
    if not record.messages or record.messages[-1].role is not Role.ASSISTANT or record.rejected:
        return None
    asked = "\n".join(f"{turn.role}:{_plain(turn.content)}" for turn in record.messages[:-1])
    # A verdict on an answer is a part of it: two answers, one good and one bad, are no conflict.
    return (_digest(asked + record.tools + (record.label or ""), is_plain=True), _digest(record.messages[-1].content))


def _plain(text: str) -> str:
    """Words alone; a text without words as it is."""
    return _NOT_WORDS.sub(" ", text.casefold()).strip() or text


def _digest(text: str, *, is_plain: bool = False) -> bytes:
    return hashlib.blake2b((text if is_plain else _plain(text)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
