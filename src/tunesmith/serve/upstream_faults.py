"""What a client is told when the server behind us fails or refuses.

Its capacity is ours (503 with `Retry-After`), its time is ours (504), what it refuses of a request is the client's (400). Its addresses,
paths and key are nobody's: they are struck out of every message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import httpx
import orjson

from tunesmith.serve.refusal import Refusal, clipped, without_paths

__all__ = ["RETRY_AFTER_S", "cleaned", "refusal_of_event", "refusal_of_failure", "refusal_of_reply", "said_in", "unreadable"]

RETRY_AFTER_S = 5
_LONGEST_WAIT_S = 120
"""The openai client does not try again after a longer `Retry-After`."""
_SHOWN = 300
_TOO_LARGE, _TIMEOUTS, _BUSY, _NO_KEY, _NOT_FOUND = 413, (408, 504), (429, 503), (401, 403), 404
_ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.-]*://\S+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\[[0-9a-fA-F:]*:[0-9a-fA-F:]*\](?::\d+)?"
    r"|\b(?:localhost|[\w-]+(?:\.[\w-]+)+):\d+\b",
    re.IGNORECASE,
)
_FIELDS = frozenset(
    ["messages", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "response_format", "logprobs"]
)


def cleaned(text: str, *, key: str | None = None) -> str:
    """What may be shown of a server's message: one line of it, without key, addresses, paths and memory addresses."""
    text = text.replace(key, "***") if key else text
    line = next((line for line in text.splitlines() if line.strip()), "")
    if line.startswith("Traceback"):
        return ""
    line = "".join(letter if letter.isprintable() else " " for letter in without_paths(_ADDRESS.sub("...", line)))
    return clipped(" ".join(line.split()), _SHOWN)


def said_in(content: object) -> tuple[str, str | None, str | None]:
    """Message, code and param of an error body, whichever of the known shapes it has."""
    if not isinstance(content, dict):
        return "", None, None
    error = content.get("error", content)
    if isinstance(error, str):
        return error, None, None
    if not isinstance(error, dict):
        return "", None, None
    message = error.get("message", error.get("error_message", error.get("detail")))
    code, param = error.get("code"), error.get("param")
    return (
        message if isinstance(message, str) else "",
        None if code is None or isinstance(code, dict | list) else str(code),
        param if isinstance(param, str) else None,
    )


def refusal_of_reply(status: int, headers: Mapping[str, str], body: bytes, *, key: str | None = None) -> Refusal:
    """Of an answer whose status is not 200."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    message, code, param = said_in(content)
    return _refusal(status, cleaned(message, key=key), code=code, param=param, wait=headers.get("retry-after"))


def refusal_of_event(content: object, *, key: str | None = None) -> Refusal:
    """Of an error in the middle of a stream, where the status stands in `code` at best."""
    message, code, param = said_in(content)
    status = int(code) if code is not None and code.isascii() and code.isdecimal() and len(code) == 3 else 500
    return _refusal(status, cleaned(message, key=key), code=code, param=param, wait=None)


def refusal_of_failure(error: Exception) -> Refusal:
    """Of a connection that fails. The address stays in our log."""
    if isinstance(error, TimeoutError | httpx.ReadTimeout | httpx.WriteTimeout | httpx.ConnectTimeout):
        return _late("The server behind this model did not answer in time.")
    if isinstance(error, httpx.ConnectError | httpx.PoolTimeout):
        return _busy("The server behind this model cannot be reached.", None)
    return unreadable("it broke off")


def unreadable(what: str) -> Refusal:
    """Of an answer that is none."""
    return Refusal(f"The server behind this model failed: {what}. The answer is incomplete.", status=502, code="server_error")


def _refusal(status: int, message: str, *, code: str | None, param: str | None, wait: str | None) -> Refusal:
    said = f" It says: {message}" if message else ""
    if status in _BUSY:
        return _busy(f"The server behind this model is busy.{said}", wait)
    if status in _TIMEOUTS:
        return _late(f"The server behind this model did not answer in time.{said}")
    if status in _NO_KEY:
        return Refusal("The server behind this model refuses this server's key.", status=502, code="server_error")
    if status == _NOT_FOUND:
        return _busy("The server behind this model does not have it at the moment.", wait)
    if 400 <= status < 500:
        is_long = code == "context_length_exceeded" or "context length" in message or "context size" in message
        return Refusal(
            f"The server behind this model refuses the request.{said}",
            status=_TOO_LARGE if status == _TOO_LARGE else 400,
            code="context_length_exceeded" if is_long else "invalid_value",
            param="messages" if is_long else param if param in _FIELDS else None,
        )
    return Refusal(f"The server behind this model failed.{said}", status=502, code="server_error")


def _busy(message: str, wait: str | None) -> Refusal:
    """`Retry-After` in whole seconds: what the server says, if it is a number, and ours otherwise."""
    try:
        wait_s = math.ceil(float(wait or RETRY_AFTER_S))
    except (ValueError, OverflowError):
        wait_s = RETRY_AFTER_S
    wait_s = min(max(wait_s, 1), _LONGEST_WAIT_S)
    message = f"{message} Try again in {wait_s} s."
    return Refusal(message, status=503, code="overloaded", headers={"Retry-After": str(wait_s)})


def _late(message: str) -> Refusal:
    return Refusal(message, status=504, code="timeout")
