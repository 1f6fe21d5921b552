"""Another's model behind OpenAI's chat API, as an arm: it answers, and gives no likelihoods.

Four questions are under way at a time. Status 429 and 5xx, a connection that breaks, a timeout and an answer that is no JSON are asked
again, up to 5 times in all, each time after twice as long, or after what `Retry-After` says. The key comes from an environment variable
and stands in no message, log or report. Answers are kept as they come (`answer_log`), so that none is paid for twice.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from tunesmith.data.files import strict_json
from tunesmith.errors import EndpointError
from tunesmith.evaluate.addresses import retry_after, shown, without_blanks
from tunesmith.evaluate.answer_log import AnswerLog, Kept
from tunesmith.evaluate.arms import Usage
from tunesmith.evaluate.config import EndpointConfig
from tunesmith.records import Message
from tunesmith.store import digest_of

if TYPE_CHECKING:
    import httpx

__all__ = ["Endpoint", "require_key"]

_NUM_AT_ONCE = 4
_NUM_TRIES = 5
_LONGEST_WAIT_S = 120.0
_SHOWN = 300
_REFUSED, _TOO_MANY, _SERVER_FAULT = 400, 429, 500
_PATH = "/chat/completions"
_HALF = re.compile("[\ud800-\udfff]")
"""Half a character, which an answer cut at its limit may end with and no report can hold."""


class _TryAgain(Exception):
    """This try failed, and another may not. `after_s` is what the server asks for."""

    def __init__(self, reason: str, *, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


def require_key(config: EndpointConfig) -> str | None:
    """The endpoint's key, or None where it needs none.

    Raises:
        EndpointError: the environment variable is not set.
    """
    if config.key_env is None:
        return None
    key = os.environ.get(config.key_env, "").strip()
    if not key:
        raise EndpointError(
            f"evaluate.endpoints: {config.name} needs its key in the environment variable {config.key_env}, which is not set"
        )
    return key


class Endpoint:
    """One model behind an HTTP endpoint."""

    def __init__(
        self, config: EndpointConfig, *, max_new_tokens: int, first_wait_s: float = 0.5, log: AnswerLog | None = None
    ) -> None:
        """Keep the settings.

        Args:
            config: where it is and what it is called.
            max_new_tokens: of an answer.
            first_wait_s: before the second try; doubled for each further one.
            log: where answers are kept, and looked for before the endpoint is asked; None keeps none.
        """
        self.last_usage: list[Usage] = []
        """What the last answers took, as far as the server tells."""
        self.reused: dict[str, Kept] = {}
        """Answers that were kept before and not asked for again, by the digest of what was asked."""
        self._config = config
        self._max_new_tokens = max_new_tokens
        self._first_wait_s = first_wait_s
        self._log = log
        self._asked: set[str] = set()
        self._url = _address(config.url)
        self._limit_name = "max_tokens"
        self._is_greedy = True

    def generate(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[str]:
        """Ask for one answer to each conversation, at temperature 0.

        Raises:
            EndpointError: the endpoint refuses, or fails again and again; the message names address and status.
        """
        import httpx

        offered = tools or [""] * len(conversations)
        asked = [(turns, each, self._digest(turns, tools=each)) for turns, each in zip(conversations, offered, strict=True)]
        found = self._find_kept([digest for _, _, digest in asked])
        missing = {digest: (turns, each) for turns, each, digest in asked if digest not in found}
        key = require_key(self._config) if missing else None
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._asked |= missing.keys()
        stop = threading.Event()
        with (
            httpx.Client(headers=headers, timeout=self._config.timeout_s) as client,
            ThreadPoolExecutor(_NUM_AT_ONCE) as pool,
        ):
            waiting = {
                digest: pool.submit(self._ask, client, turns, tools=each, digest=digest, stop=stop)
                for digest, (turns, each) in missing.items()
            }
            try:
                found |= {digest: future.result() for digest, future in waiting.items()}
            finally:  # after a failure, or Ctrl-C, the others are not asked any more
                stop.set()
                pool.shutdown(cancel_futures=True)
        self.last_usage = [found[digest][1] for _, _, digest in asked]
        return [found[digest][0] for _, _, digest in asked]

    def _find_kept(self, digests: Sequence[str]) -> dict[str, tuple[str, Usage]]:
        if self._log is None:
            return {}
        max_age_s = self._config.keep_h * 3600
        kept = {digest: one for digest in digests if (one := self._log.find(digest, max_age_s=max_age_s)) is not None}
        self.reused |= {digest: one for digest, one in kept.items() if digest not in self._asked}
        return {digest: (one.answer, one.usage) for digest, one in kept.items()}

    def _digest(self, conversation: Sequence[Message], *, tools: str) -> str:
        """Of all that decides an answer. Who asks (a user's name and password in the address, the key) is not part of it."""
        parts = urlsplit(self._url)
        return digest_of(
            {
                "url": urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])),
                "model": self._config.model,
                "max_new_tokens": self._max_new_tokens,
                "messages": [[turn.role.value, turn.content] for turn in conversation],
                "tools": tools,
            }
        )

    def _ask(
        self, client: httpx.Client, conversation: Sequence[Message], *, tools: str, digest: str, stop: threading.Event
    ) -> tuple[str, Usage]:
        """Ask until there is an answer, or no hope of one; keep it."""
        reason = ""
        for number in range(_NUM_TRIES):
            if stop.is_set():
                break
            started = time.perf_counter()
            try:
                reply = self._post(client, self._body(conversation, tools=tools))
                answer, usage = _answer_in(reply, seconds=time.perf_counter() - started)
                if self._log is not None:
                    self._log.keep(digest, answer, usage)
                return answer, usage
            except _TryAgain as failed:
                reason = str(failed)
                wait_s = self._first_wait_s * 2**number if failed.after_s is None else failed.after_s
                if wait_s > _LONGEST_WAIT_S:
                    raise self._error(f"{reason}; it asks to wait {wait_s:,.0f} s") from None
                if number + 1 < _NUM_TRIES:
                    stop.wait(wait_s)
            except EndpointError:
                stop.set()
                raise
        stop.set()
        raise self._error(f"{reason or 'stopped'}, {_NUM_TRIES} times") from None

    def _body(self, conversation: Sequence[Message], *, tools: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": [{"role": turn.role.value, "content": turn.content} for turn in conversation],
            self._limit_name: self._max_new_tokens,
        }
        return body | ({"temperature": 0} if self._is_greedy else {}) | ({"tools": json.loads(tools)} if tools else {})

    def _post(self, client: httpx.Client, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            response = client.post(self._url, json=body)
        except httpx.TimeoutException as error:
            raise _TryAgain(f"no answer within {self._config.timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise _TryAgain(f"the connection failed ({without_blanks(str(error)) or type(error).__name__})") from error
        status = response.status_code
        if status == _TOO_MANY or status >= _SERVER_FAULT:
            raise _TryAgain(f"status {status}: {self._said(response)}", after_s=retry_after(response.headers.get("retry-after")))
        if status == _REFUSED and self._gives_in(response.text, body):
            raise _TryAgain(f"status {status}: {self._said(response)}", after_s=0.0)
        if not response.is_success:
            raise self._error(f"status {status}: {self._said(response)}")
        try:
            reply = response.json()
        except ValueError as error:
            raise _TryAgain(f"status {status}, but the answer is no JSON: {self._said(response)}") from error
        if not isinstance(reply, dict):
            raise _TryAgain(f"status {status}, but the answer is no JSON object: {self._said(response)}")
        return reply

    def _gives_in(self, text: str, body: Mapping[str, Any]) -> bool:
        """Newer models know other parameters; ask as they want it. Whether there is anything to change."""
        if "max_completion_tokens" in text and "max_tokens" in body:
            self._limit_name = "max_completion_tokens"
            return True
        if "temperature" in text and "temperature" in body:
            self._is_greedy = False
            return True
        return False

    def _said(self, response: httpx.Response) -> str:
        """The beginning of what the server said; a key that it repeats is struck out."""
        text = without_blanks(response.text)
        key = os.environ.get(self._config.key_env or "", "").strip()
        text = text.replace(key, "***") if key else text
        return (text[:_SHOWN] + ("…" if len(text) > _SHOWN else "")) or "(nothing)"

    def _error(self, reason: str) -> EndpointError:
        return EndpointError(
            f"{self._config.name} at {shown(self._url)}: {reason}. Mend it, or take it out of evaluate.endpoints, and run again: "
            f"what has been trained{', and every answer that it gave,' if self._log else ''} is kept"
        )


def _answer_in(reply: Mapping[str, Any], *, seconds: float) -> tuple[str, Usage]:
    try:
        message = reply["choices"][0]["message"]
        answer = message.get("content")
        if answer is None:
            answer = "\n".join(map(_call, message.get("tool_calls") or []))
        if not isinstance(answer, str):
            raise TypeError("its content is no text")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        said = without_blanks(json.dumps(reply, ensure_ascii=False))[:_SHOWN]
        raise _TryAgain(f"the answer holds no message ({type(error).__name__}): {said}") from error
    told = reply.get("usage")
    counts = [told.get(key) if isinstance(told, dict) else None for key in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else None for count in counts)
    return _HALF.sub("\ufffd", answer).strip(), Usage(prompt, completion, seconds)


def _call(call: Mapping[str, Any]) -> str:
    """A call of a tool, as `data.turns` writes it. Arguments that are no JSON are the model's fault: it is judged by what it wrote."""
    function = call["function"]
    name, arguments = json.dumps(function["name"], ensure_ascii=False), function["arguments"]
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    with suppress(ValueError):
        written = json.dumps(strict_json(written.strip() or "{}"), ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {written}}}\n</tool_call>'


def _address(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_PATH) else path + _PATH))
