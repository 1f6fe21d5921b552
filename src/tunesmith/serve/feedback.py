"""`POST /v1/feedback`: what somebody says of an answer, by the `id` that the answer had.

It may come long after the answer or while that is still streamed, so an id of ours is accepted whether the log has its answer or not;
any other id is none, and a 404, and so is a `choice` beyond the answers that the id tells of. Nothing is changed later: a better
judgement overrides an earlier one, and both stay.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass
from typing import Protocol, cast, get_args

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tunesmith.records import Feedback, FeedbackKind, FeedbackSource
from tunesmith.serve.answer_id import MAX_ANSWERS, num_answers
from tunesmith.serve.body import read_body
from tunesmith.serve.fields import Fields
from tunesmith.serve.json_body import read_json
from tunesmith.serve.refusal import Refusal, clipped, json_response
from tunesmith.serve.wire_tokens import fields_of
from tunesmith.store.request_log import FeedbackOutcome

__all__ = ["FeedbackBook", "FeedbackEndpoint", "FeedbackRequest", "read_feedback_request"]

ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
MAX_WORDS = 256
"""Characters of a name, a category, or whoever says it."""
MAX_TEXT = 32_768
"""Characters of a rationale, a text or a correction."""
MAX_NUMBER = 1e9
_FIELDS = frozenset({"id", "completion", "choice", "name", "kind", "value", "source", "by", "rationale", "overrides"})
_RETRY_AFTER_S = 60


class FeedbackBook(Protocol):
    """Where feedback is kept: `store.RequestLog`."""

    def add_feedback(self, feedback: Feedback, /, *, key: str) -> FeedbackOutcome:
        """Keep it. Called on a thread of its own, and may take its time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRequest:
    """Feedback that makes sense by itself."""

    completion: str
    choice: int
    feedback: Feedback


class FeedbackEndpoint:
    """The endpoint."""

    def __init__(self, book: FeedbackBook, *, max_body_bytes: int) -> None:
        self._book = book
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(Request(scope, receive), max_bytes=self._max_body_bytes)
        except ClientDisconnect:
            return
        request = read_feedback_request(read_json(body))
        key = _key_of(scope)
        outcome = await asyncio.to_thread(self._book.add_feedback, request.feedback, key=key)
        if outcome.kind not in ("kept", "repeated"):
            raise _refused(outcome.kind)
        if outcome.kind == "kept":
            scope["app"].state.metrics.judged(kind=request.feedback.kind)
        content = {
            "id": request.feedback.id,
            "object": "feedback",
            "completion": request.completion,
            "choice": request.choice,
            "status": "pending" if outcome.is_pending else "recorded",
        }
        await json_response(content, status=201 if outcome.kind == "kept" else 200)(scope, receive, send)


def _key_of(scope: Scope) -> str:
    """The prefix of the key that says so; one for all where there are no keys."""
    key = scope["state"].get("key")
    return "" if key is None else str(key.prefix)


def read_feedback_request(value: object) -> FeedbackRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, with up to 10 problems; `param` and `code` are those of the first. 404: no answer of ours has such an id, or it
            had no such choice.
    """
    fields = fields_of(value)
    fields.check_names(_FIELDS, {})
    completion, choice = fields.text("completion", required=True), fields.whole("choice", low=0, high=MAX_ANSWERS - 1) or 0
    kind = _read_word(fields, "kind", get_args(FeedbackKind), default=None)
    feedback = Feedback(
        id=_read_id(fields, "id") or f"fb-{uuid.uuid4().hex}",
        interaction=f"{completion}-{choice}" if choice else completion,
        name=_read_text(fields, "name", most=MAX_WORDS) or "quality",
        kind=cast("FeedbackKind", kind),
        value=_read_value(fields, kind),
        source=cast("FeedbackSource", _read_word(fields, "source", get_args(FeedbackSource), default="human")),
        by=_read_text(fields, "by", most=MAX_WORDS),
        rationale=_read_text(fields, "rationale", most=MAX_TEXT),
        overrides=_read_id(fields, "overrides"),
    )
    fields.problems.raise_if_any()
    _require_answer(completion, choice)
    return FeedbackRequest(completion=completion, choice=choice, feedback=feedback)


def _require_answer(completion: str, choice: int) -> None:
    num = num_answers(completion)
    if not num:
        message = (
            f"There is no answer {clipped(completion)!r}. Send the `id` of a chat completion of this server; "
            "nothing is kept of a completion without a chat."
        )
        raise Refusal(message, status=404, code="completion_not_found", param="completion")
    if choice >= num:
        had = "one answer, choice 0" if num == 1 else f"{num} answers, choices 0 to {num - 1}"
        message = f"There is no choice {choice}: this completion had {had}."
        raise Refusal(message, status=404, code="choice_not_found", param="choice")


def _read_value(fields: Fields, kind: str) -> bool | float | str:
    if kind == "thumbs":
        if fields.of_type("value", bool, "true (up) or false (down)", required=True) is None:
            return False
        return fields.flag("value")
    if kind == "number":
        if fields.of_type("value", (int, float), "a number", required=True) is None:
            return 0.0
        return fields.number("value", default=0.0, low=-MAX_NUMBER, high=MAX_NUMBER)
    if kind not in get_args(FeedbackKind):
        return ""  # told already; nobody knows what the value had to be
    text = _read_text(fields, "value", most=MAX_WORDS if kind == "category" else MAX_TEXT, required=True)
    if isinstance(fields.value.get("value"), str) and not text.strip():
        fields.wrong("value", "must not be empty")
    return text


def _read_word(fields: Fields, name: str, known: tuple[str, ...], *, default: str | None) -> str:
    if default is not None and fields.value.get(name) is None:
        return default
    word = fields.text(name, required=True)
    if word not in known and isinstance(fields.value.get(name), str):
        fields.wrong(name, f"must be one of {', '.join(known)}, not {clipped(word)!r}")
    return word


def _read_id(fields: Fields, name: str) -> str:
    text = fields.text(name)
    if fields.value.get(name) is not None and not ID.fullmatch(text):
        fields.wrong(name, "must be 1 to 128 letters, digits, dots, colons, dashes and underscores")
    return text


def _read_text(fields: Fields, name: str, *, most: int, required: bool = False) -> str:
    text = fields.text(name, required=required)
    if len(text) > most:
        fields.wrong(name, f"must have at most {most:,} characters, not {len(text):,}")
    return text


def _refused(kind: str) -> Refusal:
    refusals: dict[str, Refusal] = {
        "contradicts": Refusal(
            "There is other feedback with this id already. Send a new one with `overrides` set to that id.",
            status=409,
            code="conflict",
            param="id",
        ),
        "overrides_unknown": Refusal(
            "There is no feedback with this id on the same answer.", status=404, code="feedback_not_found", param="overrides"
        ),
        "too_many": Refusal(
            "This key has sent as much feedback as it may send in a day.",
            status=429,
            code="rate_limit_exceeded",
            headers={"Retry-After": str(_RETRY_AFTER_S)},
        ),
        "busy": Refusal("The log cannot keep up; try again.", status=503, code="overloaded", headers={"Retry-After": "5"}),
    }
    return refusals[kind]
