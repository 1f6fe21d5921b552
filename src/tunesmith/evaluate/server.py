"""Somebody's model server, asked whatever it knows to answer: vLLM, SGLang, llama.cpp's, Ollama, ours.

All of them list models and answer chats. What else a server has differs, so each question tries the routes that are known for it in
order and returns None where none of them answers. A server that cannot be reached, wants a key, or does not have the model is an error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from tunesmith.errors import EndpointError
from tunesmith.evaluate.addresses import retry_after, shown, without_blanks
from tunesmith.records import Message

if TYPE_CHECKING:
    import httpx

__all__ = ["ChatAnswer", "Server", "TokenSaid"]

_NUM_TRIES = 3
_LONGEST_WAIT_S = 20.0
_SHOWN = 200
_OK, _NO_KEY, _NOT_FOUND, _TOO_MANY, _SERVER_FAULT = 200, (401, 403), 404, 429, 500
_NUM_TOP = 20
"""Others to ask for in each token's place; no server gives more."""


@dataclass(frozen=True, slots=True)
class TokenSaid:
    """One token of an answer: its text, its log-likelihood in nats, and those of others in its place by their text."""

    text: str
    log_likelihood: float
    top: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """An answer to a conversation. What the server does not tell is None."""

    text: str
    finish_reason: str | None
    num_prompt_tokens: int | None
    tokens: tuple[TokenSaid, ...] | None


class Server:
    """One model on a server. Use it as a context manager."""

    def __init__(self, url: str, *, model: str | None, api_key: str | None, timeout_s: float = 60.0) -> None:
        """Keep the settings.

        Args:
            url: with or without `/v1` or `/v1/chat/completions` at its end.
            model: its name there; None takes the only one.
            api_key: sent as a bearer token; shown nowhere.
            timeout_s: for one answer.
        """
        parts = urlsplit(url.strip())
        path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise EndpointError(f"--endpoint: {shown(url)} is no address of a server, such as http://127.0.0.1:8000")
        self._root = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        self._key = api_key
        self._timeout_s = timeout_s
        self._client: httpx.Client | None = None
        self._card: dict[str, Any] = {}
        self.model = model or ""

    def __enter__(self) -> Server:
        import httpx

        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(headers=headers, timeout=self._timeout_s)
        try:
            self._find_model()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._client is not None
        self._client.close()

    @property
    def address(self) -> str:
        """Where it is, without secrets."""
        return shown(self._root)

    @property
    def max_length(self) -> int | None:
        """The context in tokens, where the list of models tells."""
        found = self._card.get("max_model_len")
        return found if isinstance(found, int) else None

    def text_tokens(self, text: str) -> list[int] | None:
        """Tokens of a plain text, with nothing in front."""
        plain = {"model": self.model, "prompt": text, "add_special_tokens": False}
        for path, body in (
            ("/tokenize", plain),
            ("/v1/tokenize", plain),
            ("/tokenize", {"content": text, "add_special": False, "parse_special": False}),
        ):
            if tokens := _tokens(self._try("POST", path, body)):
                return tokens
        return None

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int] | None:
        """Tokens of a conversation up to the answer: vLLM's `/tokenize`, or llama.cpp's `/apply-template` and `/tokenize`."""
        turns = _turns(messages)
        if tokens := _tokens(self._try("POST", "/tokenize", {"model": self.model, "messages": turns})):
            return tokens
        applied = self._try("POST", "/apply-template", {"messages": turns})
        prompt = applied.get("prompt") if applied else None
        if not isinstance(prompt, str):
            return None
        # As its chat route does it: special tokens in the text are read, and the tokenizer adds its own.
        return _tokens(self._try("POST", "/tokenize", {"content": prompt, "add_special": True, "parse_special": True})) or None

    def count_text(self, text: str) -> int | None:
        """How many tokens a plain text has, with what the tokenizer puts in front. Ollama must be asked for it raw."""
        raw = {"model": self.model, "prompt": text, "raw": True, "stream": False, "options": {"num_predict": 1}}
        found = self._try("POST", "/api/generate", raw)
        if found is not None and isinstance(count := found.get("prompt_eval_count"), int):
            return count
        if found is not None:
            return None
        return _usage(self._try("POST", "/v1/completions", {"model": self.model, "prompt": text, "max_tokens": 1}))

    def quantisation(self) -> str | None:
        """What Ollama says of how weights are rounded, such as `Q8_0`."""
        details = (self._try("POST", "/api/show", {"model": self.model}) or {}).get("details")
        level = details.get("quantization_level") if isinstance(details, dict) else None
        return level if isinstance(level, str) and level else None

    def log_likelihoods(self, tokens: Sequence[int]) -> list[float] | None:
        """Of all tokens but the first: `/v1/completions` with `echo`, or vLLM's `prompt_logprobs`."""
        asked = {"model": self.model, "prompt": list(tokens), "temperature": 0}
        for limit in (0, 1):
            found = _choice(self._try("POST", "/v1/completions", asked | {"echo": True, "logprobs": 1, "max_tokens": limit}))
            said = found.get("logprobs")
            values = said.get("token_logprobs") if isinstance(said, dict) else None
            if isinstance(values, list) and len(tokens) <= len(values) <= len(tokens) + limit:
                values = values[1 : len(tokens)]
                return values if all(isinstance(value, int | float) for value in values) else None
        found = _choice(self._try("POST", "/v1/completions", asked | {"prompt_logprobs": 0, "max_tokens": 1}))
        places = found.get("prompt_logprobs")
        if not isinstance(places, list) or len(places) != len(tokens):
            return None
        try:
            return [float(place[str(token)]["logprob"]) for place, token in zip(places[1:], tokens[1:], strict=True)]
        except (KeyError, TypeError, ValueError):
            return None

    def chat(self, messages: Sequence[Message], *, max_tokens: int, with_likelihoods: bool = False) -> ChatAnswer | str:
        """The greedy answer to a conversation; a text says why it was refused.

        Raises:
            EndpointError: the server does not answer chats.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": _turns(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": False,
        }
        if with_likelihoods:
            found = self._try("POST", "/v1/chat/completions", body | {"logprobs": True, "top_logprobs": _NUM_TOP})
            if found is not None:
                return self._answer(found)
        response = self._send("POST", "/v1/chat/completions", body)
        if response.status_code == _NOT_FOUND:
            raise self._error(f"POST /v1/chat/completions: status 404: {self._said(response)}")
        content = _json(response)
        return self._answer(content) if response.status_code == _OK and content else self._said(response)

    def _answer(self, content: Mapping[str, Any]) -> ChatAnswer:
        choice = _choice(content)
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise self._error(f"its answer to a chat holds no message: {without_blanks(str(dict(content)))[:_SHOWN]}")
        finish = choice.get("finish_reason")
        return ChatAnswer(
            text=text.strip(),
            finish_reason=finish if isinstance(finish, str) else None,
            num_prompt_tokens=_usage(content),
            tokens=_said_tokens(choice.get("logprobs")),
        )

    def _find_model(self) -> None:
        response = self._send("GET", "/v1/models", None)
        content = _json(response) if response.status_code == _OK else None
        listed = content.get("data") if content else None
        if not isinstance(listed, list):
            what = f"GET /v1/models: status {response.status_code}: {self._said(response)}"
            raise self._error(f"this does not look like a server of language models ({what})")
        cards = {str(card["id"]): card for card in listed if isinstance(card, dict) and "id" in card}
        names = list(cards)
        if not self.model:
            kinds = {str(card.get("root") or name) for name, card in cards.items()}
            if len(kinds) != 1:
                raise self._error(f"it serves {len(names)} models; name one with --model: {', '.join(names[:8]) or '(none)'}")
            self.model = names[0]
        found = next((name for name in names if name == self.model or name.removesuffix(":latest") == self.model), None)
        if found is None:
            raise self._error(
                f"it has no model {self.model!r}; it serves: {', '.join(names[:8]) or '(none)'}. Name one with --model"
            )
        self._card = cards[found]

    def _try(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer of a route that a server may not have."""
        response = self._send(method, path, body)
        return _json(response) if response.status_code == _OK else None

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """Ask, and again when the server is busy or the connection breaks."""
        import httpx

        assert self._client is not None
        reason = ""
        for number in range(_NUM_TRIES):
            wait_s = 0.2 * 2**number
            try:
                response = self._client.request(method, f"{self._root}{path}", json=body)
            except httpx.TimeoutException:
                raise self._error(f"{method} {path}: no answer within {self._timeout_s:g} s") from None
            except (httpx.TransportError, httpx.InvalidURL) as error:
                reason = f"the connection failed ({without_blanks(str(error)) or type(error).__name__})"
                if isinstance(error, httpx.ConnectError):
                    reason += "; start the server, or name the address that it prints"
            else:
                if response.status_code in _NO_KEY:
                    key = "the key is refused" if self._key else "it wants a key; give one with --api-key"
                    raise self._error(f"{key} ({method} {path}: status {response.status_code})")
                if response.status_code != _TOO_MANY and (response.status_code < _SERVER_FAULT or not _is_passing(response)):
                    return response
                reason = f"{method} {path}: status {response.status_code}: {self._said(response)}"
                wait_s = retry_after(response.headers.get("retry-after")) or wait_s
            if wait_s > _LONGEST_WAIT_S:
                break
            if number + 1 < _NUM_TRIES:
                time.sleep(wait_s)
        raise self._error(reason)

    def _said(self, response: httpx.Response) -> str:
        text = without_blanks(response.text)
        text = text.replace(self._key, "***") if self._key else text
        return (text[:_SHOWN] + ("…" if len(text) > _SHOWN else "")) or "(nothing)"

    def _error(self, reason: str) -> EndpointError:
        return EndpointError(f"{self.address}: {reason}")


def _is_passing(response: httpx.Response) -> bool:
    """502 to 504 pass; 500 and 501 are how some servers say that they do not know a route or a field."""
    return response.status_code > _SERVER_FAULT + 1


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role.value, "content": message.content} for message in messages]


def _json(response: httpx.Response) -> dict[str, Any] | None:
    try:
        content = response.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _tokens(content: Mapping[str, Any] | None) -> list[int] | None:
    tokens = content.get("tokens") if content else None
    return tokens if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens) else None


def _choice(content: Mapping[str, Any] | None) -> dict[str, Any]:
    choices = content.get("choices") if content else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _usage(content: Mapping[str, Any] | None) -> int | None:
    told = content.get("usage") if content else None
    count = told.get("prompt_tokens") if isinstance(told, dict) else None
    return count if isinstance(count, int) and count > 0 else None


def _said_tokens(logprobs: object) -> tuple[TokenSaid, ...] | None:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content:
        return None
    try:
        return tuple(
            TokenSaid(
                str(one["token"]),
                float(one["logprob"]),
                {str(other["token"]): float(other["logprob"]) for other in one.get("top_logprobs") or ()},
            )
            for one in content
        )
    except (KeyError, TypeError, ValueError):
        return None
