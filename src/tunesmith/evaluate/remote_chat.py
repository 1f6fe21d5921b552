"""Another's model behind OpenAI's chat API, as a partner in a conversation: streamed, with patience, and its end checked.

Status 429 and 503 are asked again after what `Retry-After` says, up to 5 times in all. A stream that ends without a finish reason is an
error: it looks like success to most clients, and the answer is half. What a server refuses of the optional fields is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tunesmith.errors import EndpointError
from tunesmith.evaluate.addresses import retry_after, shown, without_blanks
from tunesmith.records import Message

if TYPE_CHECKING:
    import httpx

__all__ = ["Part", "RemoteChat"]

_NUM_TRIES = 5
_LONGEST_WAIT_S = 120.0
_FIRST_WAIT_S = 1.0
_TIMEOUT_S = 600.0
_MAX_LINE_BYTES = 1 << 20
_SHOWN = 300
_REFUSED, _NOT_FOUND, _TOO_MANY, _NO_CAPACITY = 400, 404, 429, 503
_BASE = "/v1"


class Part(NamedTuple):
    """A piece of an answer. The last one has a finish reason and, where the server tells them, the counts."""

    text: str
    finish_reason: str | None = None
    id: str = ""
    """Of the answer, by which feedback names it."""
    num_prompt_tokens: int | None = None
    num_completion_tokens: int | None = None


class _Later(Exception):
    """Not now: ask again after so many seconds."""

    def __init__(self, reason: str, *, after_s: float | None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class RemoteChat:
    """One model of one server. `ref` is the model's name there; it may be changed between two questions."""

    def __init__(
        self, url: str, *, ref: str, api_key: str | None, temperature: float, wait: Callable[[float, str], None]
    ) -> None:
        """Keep the settings.

        Args:
            url: of the server, with or without `/v1`.
            ref: the model's name; empty takes the first that the server lists.
            api_key: sent as a Bearer token; it stands in no message.
            temperature: of every answer.
            wait: called with seconds and a reason before the server is asked again; returns when they are over.

        Raises:
            EndpointError: it is no HTTP address.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EndpointError(f"{shown(url)!r} is no address of a server; write one such as http://127.0.0.1:8000")
        path = parts.path.rstrip("/")
        self._url = urlunsplit(parts._replace(path=path if path.endswith(_BASE) else path + _BASE, query="", fragment=""))
        self._key = api_key
        self._wait = wait
        self._optional: dict[str, Any] = {"temperature": temperature, "stream_options": {"include_usage": True}}
        self.ref = ref or self.models()[0]

    def models(self) -> list[str]:
        """The names that the server knows.

        Raises:
            EndpointError: it does not answer, or names none.
        """
        with self._client() as client, self._sent_once(client, "GET", "/models") as response:
            listed = self._json(response).get("data")
        names = [one["id"] for one in listed or () if isinstance(one, dict) and isinstance(one.get("id"), str)]
        if not names:
            raise self._error("it lists no models; name one with --model")
        return names

    def stream(self, messages: Sequence[Message]) -> Iterator[Part]:
        """Ask for the next turn of a conversation, and give it as it comes.

        Raises:
            EndpointError: the server refuses, does not answer, or breaks off in the middle.
        """
        number = 0
        while True:
            try:
                yield from self._asked_once(messages)
                return
            except _Later as later:
                number += 1
                wait_s = _FIRST_WAIT_S * 2 ** (number - 1) if later.after_s is None else later.after_s
                if number == _NUM_TRIES or wait_s > _LONGEST_WAIT_S:
                    tries = f"{number} times" if number > 1 else f"and asks to wait {wait_s:,.0f} s"
                    raise self._error(f"{later}, {tries}") from None
                self._wait(wait_s, str(later))

    def judge(self, body: Mapping[str, Any]) -> None:
        """Send feedback on an answer.

        Raises:
            EndpointError: the server takes none, or refuses this.
        """
        with self._client() as client, self._sent_once(client, "POST", "/feedback", body=body, missing="it takes no feedback"):
            pass

    def _asked_once(self, messages: Sequence[Message]) -> Iterator[Part]:
        body = {
            "model": self.ref,
            "messages": [{"role": turn.role.value, "content": turn.content} for turn in messages],
            "stream": True,
            **self._optional,
        }
        with self._client() as client, self._sent(client, "POST", "/chat/completions", body=body) as response:
            if "text/event-stream" in response.headers.get("content-type", ""):
                yield from self._streamed(response)
            else:
                yield self._whole(self._json(response))

    def _streamed(self, response: httpx.Response) -> Iterator[Part]:
        finish: str | None = None
        counts: tuple[int | None, int | None] = (None, None)
        answer_id = ""
        for event in _events(response):
            try:
                told = json.loads(event)
                if "error" in told:
                    raise self._error(f"the answer broke off: {self._reason(told)}")
                answer_id = str(told.get("id") or answer_id)
                counts = _counts(told) or counts
                choice: dict[str, Any] = next(iter(told.get("choices") or ()), {})
                text = (choice.get("delta") or {}).get("content")
                finish = choice.get("finish_reason") or finish
            except (ValueError, AttributeError, TypeError) as error:
                raise self._error(f"it sent an event that cannot be read: {without_blanks(event)[:_SHOWN]}") from error
            if isinstance(text, str) and text:
                yield Part(text, id=answer_id)
        if finish is None:
            raise self._error("the answer broke off: its stream ended without a finish reason, so this is not all of it")
        yield Part("", str(finish), answer_id, *counts)

    def _whole(self, told: Mapping[str, Any]) -> Part:
        try:
            choice = told["choices"][0]
            text, finish = choice["message"]["content"] or "", str(choice["finish_reason"])
            return Part(str(text), finish, str(told.get("id", "")), *(_counts(told) or (None, None)))
        except (KeyError, IndexError, TypeError) as error:
            raise self._error("its answer holds no message") from error

    def _client(self) -> httpx.Client:
        import httpx

        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        return httpx.Client(headers=headers, timeout=httpx.Timeout(_TIMEOUT_S, connect=10.0))

    @contextmanager
    def _sent(
        self, client: httpx.Client, method: str, path: str, *, body: Mapping[str, Any] | None = None, missing: str = ""
    ) -> Iterator[httpx.Response]:
        """A good response, whose body is not read yet."""
        import httpx

        try:
            with client.stream(method, self._url + path, json=body) as response:
                if not response.is_success:
                    response.read()
                    self._refuse(response, missing=missing)
                yield response
        except httpx.TimeoutException as error:
            raise self._error(f"no answer within {_TIMEOUT_S:g} s") from error
        except httpx.TransportError as error:
            raise self._error(f"the connection failed ({without_blanks(str(error)) or type(error).__name__})") from error

    @contextmanager
    def _sent_once(self, client: httpx.Client, method: str, path: str, **fields: Any) -> Iterator[httpx.Response]:
        """The same, where a server that is busy is not asked again."""
        try:
            with self._sent(client, method, path, **fields) as response:
                yield response
        except _Later as later:
            raise self._error(str(later)) from None

    def _refuse(self, response: httpx.Response, *, missing: str) -> None:
        status = response.status_code
        try:
            said = self._reason(response.json())
        except ValueError:
            said = self._without_key(without_blanks(response.text))[:_SHOWN]
        reason = f"status {status}: {said or '(nothing)'}"
        if status in (_TOO_MANY, _NO_CAPACITY):
            raise _Later(reason, after_s=retry_after(response.headers.get("retry-after")))
        if status == _REFUSED and (named := next((name for name in self._optional if name in said), None)):
            del self._optional[named]
            raise _Later(reason, after_s=0.0)
        if status == _NOT_FOUND and missing:
            raise self._error(f"{missing} ({reason})")
        raise self._error(reason)

    def _reason(self, told: object) -> str:
        """The message of an error object, whatever its shape."""
        error = told.get("error", told) if isinstance(told, dict) else told
        message = error.get("message") if isinstance(error, dict) else error
        return self._without_key(without_blanks(message if isinstance(message, str) else json.dumps(error)))[:_SHOWN]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            told = json.loads(response.read())
        except ValueError as error:
            raise self._error("its answer is no JSON") from error
        if not isinstance(told, dict):
            raise self._error("its answer is no JSON object")
        return told

    def _error(self, reason: str) -> EndpointError:
        return EndpointError(f"{shown(self._url)}: {reason}")


def _events(response: httpx.Response) -> Iterator[str]:
    """The data of each server-sent event up to `[DONE]`. Lines end with LF only: JSON may hold what Unicode calls the end of one."""
    rest = b""
    for some in response.iter_bytes():
        *lines, rest = (rest + some).split(b"\n")
        for line in lines:
            data = line.removesuffix(b"\r").removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                yield data.decode(errors="replace")
        if len(rest) > _MAX_LINE_BYTES:
            raise EndpointError(f"an event of the answer is larger than {_MAX_LINE_BYTES:,} bytes")


def _counts(told: Mapping[str, Any]) -> tuple[int | None, int | None] | None:
    usage = told.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return (prompt if isinstance(prompt, int) else None, completion if isinstance(completion, int) else None)
