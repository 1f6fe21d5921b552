"""The request log, for people and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from tunesmith.store import LoggedFeedback, LoggedInteraction
from tunesmith.terminal.layout import columns, field, on_one_line, printable

__all__ = ["request_as_json", "request_screen", "requests_screen"]


def requests_screen(logged: Sequence[LoggedInteraction]) -> Text:
    """One line for each answer."""
    if not logged:
        return Text("no answers: `tunesmith serve` writes down what it answers")
    rows = [["answer", "given", "by", "ended", "tokens", "first token", "all"]]
    for one in logged:
        said = one.interaction
        counts = f"{said.num_prompt_tokens} + {said.num_completion_tokens}"
        times = (f"{said.first_token_ms:.0f} ms", f"{said.total_ms:.0f} ms")
        rows.append([said.id, _time(one.recorded_at), said.arm, said.finish_reason, counts, *times])
    return Text(columns(rows))


def request_screen(logged: LoggedInteraction, feedback: Sequence[LoggedFeedback]) -> Text:
    """One answer, and what was said of it."""
    said = logged.interaction
    counts = f"{said.num_prompt_tokens} tokens read, {said.num_completion_tokens} written · ended by {said.finish_reason}"
    times = f"first token after {said.first_token_ms:.0f} ms, all after {said.total_ms:.0f} ms"
    parts = [
        field("answer", f"{said.id} · {_time(logged.recorded_at)}"),
        field("by", f"{said.arm}, asked as {said.deployment}"),
        field("length", f"{counts} · {times}"),
    ]
    if logged.has_content:
        parts += [field(message.role, _plain(message.content)) for message in said.messages]
        parts.append(field("answered", _plain(said.answer)))
    else:
        parts.append(field("text", "was not kept: that takes `tunesmith serve --log-content`"))
    for one in feedback:
        parts.append(field("feedback", _told(one)))
    return Text("\n").join(parts)


def request_as_json(logged: LoggedInteraction, feedback: Sequence[LoggedFeedback] | None = None) -> dict[str, Any]:
    """Plain values for `--json`; texts are null where they were not kept."""
    said = asdict(logged.interaction)
    texts = {} if logged.has_content else {"messages": None, "answer": None}
    values = said | texts | {"recorded_at": logged.recorded_at}
    for unknown in ("user", "shadow_of"):  # the log has neither
        del values[unknown]
    if feedback is None:
        return values
    return values | {"feedback": [asdict(one.feedback) | {"is_overridden": one.is_overridden} for one in feedback]}


def _told(logged: LoggedFeedback) -> str:
    one = logged.feedback
    value = ("up" if one.value else "down") if one.kind == "thumbs" else _plain(str(one.value))
    whose = one.source + (f", {_plain(one.by)}" if one.by else "")
    reason = f": {_plain(one.rationale)}" if one.rationale else ""
    return f"{_plain(one.name)} = {value} ({whose}){reason}" + (" · overridden since" if logged.is_overridden else "")


def _plain(text: str) -> str:
    """What clients wrote, without what would move a cursor."""
    return printable(on_one_line(text))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
