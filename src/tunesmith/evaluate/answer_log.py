"""Answers that were paid for, kept as they come: an evaluation that fails half way asks only for what is missing.

One file of JSON lines; each line is on the disk before the next question is asked in its place, and a torn last line is left out. It
holds digests of what was asked, never the questions, an address or a key. Several processes may write to it at once.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tunesmith.evaluate.arms import Usage
from tunesmith.store.folders import make_folder, plain_errors
from tunesmith.store.lines import append_lines, whole_lines

__all__ = ["AnswerLog", "Kept"]


class Kept(NamedTuple):
    """An answer, and when it came."""

    answer: str
    usage: Usage
    at: float
    """Seconds since 1970."""

    @property
    def when(self) -> str:
        """The same as a date and time in UTC."""
        return datetime.fromtimestamp(self.at, tz=UTC).isoformat(timespec="minutes")


class AnswerLog:
    """The file. Nothing is made before the first answer.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "answers.jsonl"
    >>> AnswerLog(path).keep("d41d", "At nine.", Usage(7, 3, 0.5))
    >>> AnswerLog(path).find("d41d", max_age_s=60).answer, AnswerLog(path).find("d41d", max_age_s=0)
    ('At nine.', None)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._found: dict[str, Kept] = {}
        self._read_to = 0

    def find(self, key: str, *, max_age_s: float) -> Kept | None:
        """The newest answer that is younger than this, if there is one. What other processes have kept meanwhile is seen."""
        with self._lock:
            self._read_new()
            kept = self._found.get(key)
        return kept if kept is not None and time.time() - kept.at < max_age_s else None

    def keep(self, key: str, answer: str, usage: Usage) -> None:
        """Write an answer; it is on the disk when this returns.

        Raises:
            OutOfSpace: the disk is full; the file is as it was.
        """
        line = orjson.dumps(
            {"key": key, "at": round(time.time(), 3), "answer": answer, **usage._asdict()}, option=orjson.OPT_APPEND_NEWLINE
        )
        with self._lock, plain_errors(self.path):
            make_folder(self.path.parent)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                append_lines(file, line, folder=self.path.parent)
            finally:
                os.close(file)

    def _read_new(self) -> None:
        for line in whole_lines(self.path, start=self._read_to):
            self._read_to += len(line)
            if (read := _kept(line)) is not None:
                key, kept = read
                self._found[key] = kept


def _kept(line: bytes) -> tuple[str, Kept] | None:
    """A line that is not one of ours is an answer that is asked for again, and no reason to stop."""
    try:
        plain: dict[str, Any] = orjson.loads(line)
        took = [plain[name] for name in Usage._fields]
        key, answer, at = plain["key"], plain["answer"], float(plain["at"])
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(key, str) or not isinstance(answer, str) or not all(isinstance(one, int | float | None) for one in took):
        return None
    return key, Kept(answer, Usage(*took), at)
