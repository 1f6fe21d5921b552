"""The request log as it is read: by whoever watches the traffic, while a server goes on writing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tunesmith.errors import NotFound, UserError
from tunesmith.records import Feedback, Interaction, Message, Role

__all__ = ["LoggedFeedback", "LoggedInteraction", "RequestReader"]

_PAGE = 500
"""Rows read at a time: a reader that holds the file longer would hold up the writer."""


class LoggedInteraction(NamedTuple):
    """An answer, and when it was given."""

    interaction: Interaction
    """Without messages, answer and user: the first two where they were not kept, the last always."""
    recorded_at: float
    """Unix seconds."""
    has_content: bool


class LoggedFeedback(NamedTuple):
    """Feedback, and what is known of the answer that it is about."""

    feedback: Feedback
    recorded_at: float
    """Unix seconds."""
    arm: str | None
    """The version that gave the answer; None where that is not in the log."""
    is_overridden: bool
    """Later feedback stands in its place."""


class RequestReader:
    """Reads a log; a file that is not there reads as an empty one, and one that cannot be read is a `UserError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def interactions(self, *, since: float = 0.0, until: float = 1e12, arm: str | None = None) -> Iterator[LoggedInteraction]:
        """Answers given in a time (Unix seconds), the oldest first.

        Args:
            since: from this time on.
            until: before this time.
            arm: of this version only.
        """
        query = (
            "SELECT * FROM interactions WHERE (recorded_at, id) > (?, ?) AND recorded_at >= ? AND recorded_at < ? "
            "AND (? IS NULL OR arm = ?) ORDER BY recorded_at, id LIMIT ?"
        )
        for row in self._pages(query, (since, until, arm, arm)):
            yield _interaction(row)

    def newest(self, num: int) -> list[LoggedInteraction]:
        """The last answers, the newest last."""
        rows = self._page("SELECT * FROM interactions ORDER BY recorded_at DESC, id DESC LIMIT ?", (num,))
        return [_interaction(row) for row in reversed(rows)]

    def find(self, interaction: str) -> LoggedInteraction:
        """One answer.

        Raises:
            NotFound: it is not in the log, or not any more.
        """
        rows = self._page("SELECT * FROM interactions WHERE id = ?", (interaction,))
        if not rows:
            raise NotFound(f"there is no answer {interaction!r} in the request log: `tunesmith requests list` shows the newest")
        return _interaction(rows[0])

    def feedback(self, *, since: float = 0.0, until: float = 1e12, interaction: str | None = None) -> Iterator[LoggedFeedback]:
        """Feedback that came in a time (Unix seconds), the oldest first, with what it is about.

        Args:
            since: from this time on.
            until: before this time.
            interaction: about this answer only.
        """
        query = (
            "SELECT feedback.*, interactions.arm, "
            "EXISTS (SELECT 1 FROM feedback AS later WHERE later.overrides = feedback.id) AS is_overridden "
            "FROM feedback LEFT JOIN interactions ON interactions.id = feedback.interaction "
            "WHERE (feedback.recorded_at, feedback.id) > (?, ?) AND feedback.recorded_at >= ? AND feedback.recorded_at < ? "
            "AND (? IS NULL OR feedback.interaction = ?) ORDER BY feedback.recorded_at, feedback.id LIMIT ?"
        )
        for row in self._pages(query, (since, until, interaction, interaction)):
            yield _feedback(row)

    def _pages(self, query: str, parameters: tuple[object, ...]) -> Iterator[sqlite3.Row]:
        place: tuple[float, str] = (-1.0, "")
        while True:
            rows = self._page(query, (*place, *parameters, _PAGE))
            yield from rows
            if len(rows) < _PAGE:
                return
            place = (rows[-1]["recorded_at"], rows[-1]["id"])

    def _page(self, query: str, parameters: tuple[object, ...]) -> list[sqlite3.Row]:
        if not self._path.exists():
            return []
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10.0)) as connection:
                connection.row_factory = sqlite3.Row
                return connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise UserError(f"the request log {self._path} cannot be read: {error}") from error


def _interaction(row: sqlite3.Row) -> LoggedInteraction:
    messages: list[dict[str, Any]] = orjson.loads(row["messages"] or "[]")
    interaction = Interaction(
        id=row["id"],
        deployment=row["deployment"],
        arm=row["arm"],
        messages=tuple(Message(role=Role(one["role"]), content=one["content"]) for one in messages),
        answer=row["answer"] or "",
        num_prompt_tokens=row["num_prompt_tokens"],
        num_completion_tokens=row["num_completion_tokens"],
        first_token_ms=row["first_token_ms"],
        total_ms=row["total_ms"],
        finish_reason=row["finish_reason"],
    )
    return LoggedInteraction(interaction, row["recorded_at"], row["messages"] is not None)


def _feedback(row: sqlite3.Row) -> LoggedFeedback:
    feedback = Feedback(
        id=row["id"],
        interaction=row["interaction"],
        name=row["name"],
        kind=row["kind"],
        value=orjson.loads(row["value"]),
        source=row["source"],
        by=row["author"],
        rationale=row["rationale"],
        overrides=row["overrides"],
        created_at=datetime.fromtimestamp(row["recorded_at"], UTC).isoformat(timespec="seconds"),
    )
    return LoggedFeedback(feedback, row["recorded_at"], row["arm"], bool(row["is_overridden"]))
