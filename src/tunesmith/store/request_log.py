"""What a server answered and what was said of it, in an SQLite file of its own with one writer: a thread of the server.

The server hands a row over and goes on. Rows wait in a bounded queue; where the disk is slower than the traffic, texts are shed first, then
whole rows, and both are counted. Feedback is answered when it is on the disk, and never shed in silence.

The journal is a WAL only where SQLite has the fix of the WAL-reset bug (3.51.3); else it is a rollback journal. Commits are few, because
all that waits goes into one. Texts are kept only if that was asked for; a user's name is kept as a digest with a salt of this file,
by which `erase_user` finds the rows.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import orjson

from tunesmith.errors import UserError
from tunesmith.records import Feedback, Interaction
from tunesmith.store.folders import make_folder

__all__ = ["FeedbackOutcome", "RequestLog"]

_LOG = logging.getLogger("tunesmith.store")
_DAY_S = 86_400.0
_PRUNE_EVERY_S = 3_600.0
_BUSY_TIMEOUT_S = 10.0
_WAL_IS_SAFE = (3, 51, 3)
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE interactions (
    id TEXT PRIMARY KEY, recorded_at REAL NOT NULL, deployment TEXT NOT NULL, arm TEXT NOT NULL, finish_reason TEXT NOT NULL,
    num_prompt_tokens INTEGER NOT NULL, num_completion_tokens INTEGER NOT NULL, first_token_ms REAL NOT NULL, total_ms REAL NOT NULL,
    user_digest BLOB, prompt_digest BLOB NOT NULL, messages TEXT, answer TEXT
) STRICT;
CREATE INDEX interactions_by_time ON interactions (recorded_at, id);
CREATE INDEX interactions_by_user ON interactions (user_digest) WHERE user_digest IS NOT NULL;
CREATE TABLE feedback (
    id TEXT PRIMARY KEY, recorded_at REAL NOT NULL, interaction TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
    source TEXT NOT NULL, author TEXT NOT NULL, rationale TEXT NOT NULL, overrides TEXT NOT NULL, key TEXT NOT NULL
) STRICT;
CREATE INDEX feedback_by_time ON feedback (recorded_at, id);
CREATE INDEX feedback_by_interaction ON feedback (interaction);
CREATE INDEX feedback_by_key ON feedback (key, recorded_at);
"""

R = TypeVar("R")


class FeedbackOutcome(NamedTuple):
    """What became of feedback."""

    kind: Literal["kept", "repeated", "contradicts", "overrides_unknown", "too_many", "busy"]
    is_pending: bool = False
    """The answer that it is about is not in the log yet, or not any more."""


class _Row(NamedTuple):
    interaction: Interaction
    recorded_at: float
    content_bytes: int


class _Call(NamedTuple):
    run: Callable[[sqlite3.Connection], object]
    result: Future[object]


class RequestLog:
    """The writer. Close it, so that what waits is written."""

    def __init__(
        self,
        path: Path,
        *,
        with_content: bool = False,
        keep_days: float | None = 30.0,
        max_queue: int = 10_000,
        max_content_bytes: int = 64 * 1024 * 1024,
        max_feedback_per_day: int = 10_000,
    ) -> None:
        """Open the file, made if need be, and start the thread.

        Args:
            path: of the file.
            with_content: keep what was asked and answered.
            keep_days: older rows are removed; None keeps all.
            max_queue: rows that may wait; from half of it on they lose their texts.
            max_content_bytes: of texts that may wait.
            max_feedback_per_day: from one key.

        Raises:
            UserError: it cannot be written, or is no request log.
        """
        self._path = path
        self._with_content = with_content
        self._keep_days = keep_days
        self._max_queue = max_queue
        self._max_content_bytes = max_content_bytes
        self._max_feedback_per_day = max_feedback_per_day
        self._dropped = Counter({"content": 0, "interactions": 0})
        self._waiting: deque[_Row | _Call] = deque()
        self._content_bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._salt = _prepare(path)
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows that lost their texts (`content`), and rows that are lost (`interactions`)."""
        return dict(self._dropped)

    def add(self, interaction: Interaction) -> None:
        """Keep an answer. Returns at once, from any thread."""
        num_bytes = sum(len(message.content) for message in interaction.messages) + len(interaction.answer)
        row = _Row(interaction, time.time(), num_bytes if self._with_content else 0)
        with self._changed:
            if self._is_closed or len(self._waiting) >= self._max_queue:
                self._dropped["interactions"] += 1
                return
            is_crowded = len(self._waiting) >= self._max_queue // 2
            if row.content_bytes and (is_crowded or self._content_bytes + row.content_bytes > self._max_content_bytes):
                self._dropped["content"] += 1
                row = row._replace(content_bytes=0)
            self._content_bytes += row.content_bytes
            self._waiting.append(row)
            self._changed.notify()

    def add_feedback(self, feedback: Feedback, /, *, key: str = "") -> FeedbackOutcome:
        """Keep feedback, and wait until it is on the disk. The same feedback again changes nothing.

        Args:
            feedback: about an answer, whether that is in the log or not.
            key: of whoever sends it; each may send so much a day.

        Raises:
            sqlite3.Error: it could not be written.
        """
        with self._changed:
            if self._is_closed or len(self._waiting) >= self._max_queue:
                return FeedbackOutcome("busy")
        return self._call(lambda connection: self._keep(connection, feedback, key))

    def erase_user(self, user: str) -> int:
        """Remove all answers to one user and what was said of them, from the pages of the file too; returns how many answers.

        Raises:
            UserError: it could not be written, and nothing is removed.
        """

        def erase(connection: sqlite3.Connection) -> int:
            digest = (self._digest(user.encode()),)
            connection.execute(
                "DELETE FROM feedback WHERE interaction IN (SELECT id FROM interactions WHERE user_digest = ?)", digest
            )
            return connection.execute("DELETE FROM interactions WHERE user_digest = ?", digest).rowcount

        try:
            return self._call(erase)
        except sqlite3.Error as error:
            raise UserError(f"nothing was erased: the request log {self._path} cannot be written ({error})") from error

    def prune(self) -> int:
        """Remove what is older than it may be; returns how many rows. It is done at the start and every hour."""
        return self._call(self._prune)

    def close(self, *, patience_s: float = 10.0) -> None:
        """Write what waits and end the thread; do not wait longer than this for it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _call(self, run: Callable[[sqlite3.Connection], R]) -> R:
        result: Future[object] = Future()
        with self._changed:
            self._waiting.append(_Call(run, result))
            self._changed.notify()
        return result.result()  # type: ignore[return-value]

    def _work(self) -> None:
        with contextlib.closing(_connect(self._path)) as connection:
            next_prune = 0.0
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._is_closed, timeout=_PRUNE_EVERY_S)
                    batch, self._waiting, self._content_bytes = self._waiting, deque(), 0
                    is_last = self._is_closed
                if time.monotonic() >= next_prune:
                    batch.append(_Call(self._prune, Future()))
                    next_prune = time.monotonic() + _PRUNE_EVERY_S
                self._write(connection, batch)
                if is_last:
                    return

    def _write(self, connection: sqlite3.Connection, batch: deque[_Row | _Call]) -> None:
        """All of a batch in one transaction."""
        results: list[tuple[Future[object], object]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for one in batch:
                if isinstance(one, _Call):
                    results.append((one.result, one.run(connection)))
                else:
                    self._insert(connection, one)
            connection.execute("COMMIT")
        except Exception as error:
            _LOG.exception("the request log %s could not be written", self._path)
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self._dropped["interactions"] += sum(isinstance(one, _Row) for one in batch)
            for one in batch:
                if isinstance(one, _Call):
                    one.result.set_exception(error)
            return
        for future, value in results:
            future.set_result(value)

    def _insert(self, connection: sqlite3.Connection, row: _Row) -> None:
        one = row.interaction
        messages = orjson.dumps([{"role": message.role, "content": message.content} for message in one.messages])
        values = (
            *(
                one.id,
                row.recorded_at,
                one.deployment,
                one.arm,
                one.finish_reason,
                one.num_prompt_tokens,
                one.num_completion_tokens,
            ),
            *(one.first_token_ms, one.total_ms, self._digest(one.user.encode()) if one.user else None, self._digest(messages)),
            *((messages.decode(), one.answer) if row.content_bytes else (None, None)),
        )
        connection.execute("INSERT OR IGNORE INTO interactions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", values)

    def _keep(self, connection: sqlite3.Connection, feedback: Feedback, key: str) -> FeedbackOutcome:
        now, one = time.time(), feedback
        value = orjson.dumps(one.value).decode()
        content = (one.interaction, one.name, one.kind, value, one.source, one.by, one.rationale, one.overrides, key)
        is_known = connection.execute("SELECT 1 FROM interactions WHERE id = ?", (one.interaction,)).fetchone() is not None
        found = connection.execute(
            "SELECT interaction, name, kind, value, source, author, rationale, overrides, key FROM feedback WHERE id = ?",
            (one.id,),
        ).fetchone()
        if found is not None:
            return FeedbackOutcome("repeated" if found == content else "contradicts", not is_known)
        if (
            one.overrides
            and not connection.execute(
                "SELECT 1 FROM feedback WHERE id = ? AND interaction = ?", (one.overrides, one.interaction)
            ).fetchone()
        ):
            return FeedbackOutcome("overrides_unknown")
        query = "SELECT count(*) FROM feedback WHERE key = ? AND recorded_at > ?"
        (num_sent,) = connection.execute(query, (key, now - _DAY_S)).fetchone()
        if num_sent >= self._max_feedback_per_day:
            return FeedbackOutcome("too_many")
        connection.execute("INSERT INTO feedback VALUES (?,?,?,?,?,?,?,?,?,?,?)", (one.id, now, *content))
        return FeedbackOutcome("kept", not is_known)

    def _prune(self, connection: sqlite3.Connection) -> int:
        if self._keep_days is None:
            return 0
        until = (time.time() - self._keep_days * _DAY_S,)
        statements = ("DELETE FROM interactions WHERE recorded_at < ?", "DELETE FROM feedback WHERE recorded_at < ?")
        return sum(connection.execute(statement, until).rowcount for statement in statements)

    def _digest(self, value: bytes) -> bytes:
        return blake2b(value, key=self._salt, digest_size=16).digest()


def _prepare(path: Path) -> bytes:
    """Make the file or check it; returns its salt."""
    make_folder(path.parent)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with contextlib.closing(_connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('salt', ?)", (secrets.token_bytes(32),))
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise UserError(
                    f"the request log {path} was written by a newer tunesmith (schema {version}). Upgrade, or move it away"
                )
            (salt,) = connection.execute("SELECT value FROM meta WHERE name = 'salt'").fetchone()
            connection.execute("COMMIT")
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"cannot write the request log {path} ({error}). Check its owner and mode, or move the file away"
        ) from error
    return bytes(salt)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    journal = "WAL" if sqlite3.sqlite_version_info >= _WAL_IS_SAFE else "DELETE"
    for pragma in (f"journal_mode={journal}", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()
    return connection
