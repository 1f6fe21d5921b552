"""The way to one server behind us: a client on its own thread, which asks only what it may.

Requests of clients never choose an address or a path. Redirects are not followed, and neither proxies nor `.netrc` are read from the
environment: what is behind us is named by who starts us, and by nobody else. The key is sent as a bearer token and shown nowhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson

from tunesmith.errors import EndpointError
from tunesmith.serve.upstream_faults import cleaned, said_in

__all__ = ["ALWAYS", "Link", "Reply", "read_up_to"]

ALWAYS = frozenset({"/v1/models", "/v1/chat/completions", "/v1/completions"})
_CONNECT_TIMEOUT_S = 5.0
_MAX_REPLY_BYTES = 8 * 1024 * 1024
_OK = 200
T = TypeVar("T")


class Reply(NamedTuple):
    """An answer that is not streamed."""

    status: int
    text: str

    def json(self) -> dict[str, Any]:
        """Its object; empty where it is none."""
        try:
            content = orjson.loads(self.text)
        except orjson.JSONDecodeError:
            return {}
        return content if isinstance(content, dict) else {}


class Link:
    """One server. `close` ends the thread, which starts with the first question."""

    def __init__(
        self, url: str, *, paths: frozenset[str] = frozenset(), api_key: str | None = None, patience_s: float = 120.0
    ) -> None:
        """Keep the settings.

        Args:
            url: with or without `/v1` at its end.
            paths: that may be asked beside `ALWAYS`.
            api_key: sent as a bearer token.
            patience_s: for an answer, and for each further part of a streamed one.

        Raises:
            EndpointError: this is no address of a server.
        """
        self.patience_s = patience_s
        self.api_key = api_key
        self._root = _root(url)
        self._paths = ALWAYS | paths
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx.AsyncClient | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where it is, for whoever starts us. Never for clients."""
        return self._root

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Let something go on beside the caller. Cancelling the future cancels it, and with it the request it has open."""
        try:
            loop = self._running()
        except EndpointError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, loop)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0) -> Reply:
        """Ask and wait.

        Raises:
            EndpointError: it cannot be reached, or does not answer with 200.
        """
        reply = self.try_to_ask(method, path, body, timeout_s=timeout_s)
        if reply.status != _OK:
            message, _, _ = said_in(reply.json())
            said = cleaned(message or reply.text, key=self.api_key)
            raise EndpointError(f"{self._root}: {method} {path}: status {reply.status}: {said or '(nothing)'}")
        return reply

    def try_to_ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0) -> Reply:
        """Ask and wait; any status will do.

        Raises:
            EndpointError: it cannot be reached, or does not answer in time.
        """
        try:
            return self.start(self.reply(method, path, body, timeout_s=timeout_s)).result()
        except (TimeoutError, httpx.TimeoutException):
            raise EndpointError(f"{self._root}: {method} {path}: no answer within {timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EndpointError(f"{self._root}: {method} {path}: the connection failed ({type(error).__name__})") from None

    @asynccontextmanager
    async def open(self, method: str, path: str, body: Mapping[str, Any] | None) -> AsyncIterator[httpx.Response]:
        """An answer whose body is yet to be read. On the link's own thread. Leaving it early hangs up."""
        if path not in self._paths:
            raise PermissionError(f"{path} is not among what this server may be asked")
        assert self._client is not None
        content = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        async with self._client.stream(method, self._root + path, content=content, headers=headers) as response:
            yield response

    def close(self) -> None:
        """Hang up on everything."""
        with self._lock:
            self._is_closed = True
            loop, thread, self._thread = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5.0)

    async def reply(self, method: str, path: str, body: Mapping[str, Any] | None, *, timeout_s: float) -> Reply:
        """Ask, on the link's own thread.

        Raises:
            TimeoutError: no answer in time.
            httpx.HTTPError: the connection fails.
        """
        async with asyncio.timeout(timeout_s), self.open(method, path, body) as response:
            content = await read_up_to(response, _MAX_REPLY_BYTES)
            return Reply(response.status_code, content.decode(errors="replace"))

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._is_closed:
                raise EndpointError(f"{self._root}: the link is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._client = self._new_client()
                self._thread = threading.Thread(target=self._work, args=(self._loop, self._client), name="upstream", daemon=True)
                self._thread.start()
            return self._loop

    def _new_client(self) -> httpx.AsyncClient:
        headers = {"accept-encoding": "identity", "user-agent": "tunesmith"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        return httpx.AsyncClient(
            headers=headers,
            # How long an answer may take is counted where it is read: a comment that keeps a connection open is no answer.
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0),
            verify=self._root.startswith("https"),
            trust_env=False,
            follow_redirects=False,
        )

    @staticmethod
    def _work(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(client.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


async def read_up_to(response: httpx.Response, max_bytes: int) -> bytes:
    """The body of an answer, cut at so many bytes."""
    parts: list[bytes] = []
    size = 0
    stream: AsyncGenerator[bytes, None] = response.aiter_raw()  # type: ignore[assignment]
    async for part in stream:
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            break
    await stream.aclose()
    return b"".join(parts)[:max_bytes]


def _root(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise EndpointError("--upstream: this is no address of a server, such as http://127.0.0.1:8000") from None
    if "@" in parts.netloc:
        raise EndpointError("--upstream: a name and a password do not belong into an address; the key comes from the environment")
    path = parts.path.rstrip("/").removesuffix("/v1")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise EndpointError(f"--upstream: {url.strip()} is no address of a server, such as http://127.0.0.1:8000")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
