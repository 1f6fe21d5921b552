"""A scripted engine, and a real server on a loopback port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from tunesmith.records import Message
from tunesmith.serve.app import create_app
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.engine import Piece, SamplingParams
from tunesmith.serve.lifecycle import Server
from tunesmith.serve.limits import Limits
from tunesmith.store import Keys, Store


class ScriptedEngine:
    """Says the given texts, one token each. `before` is called with the index of each piece and may wait or raise."""

    def __init__(
        self,
        *texts: str,
        ref: str = "boutique@1",
        max_length: int = 100,
        before: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.ref = ref
        self.max_length = max_length
        self.texts = texts
        self.before = before
        self.asked: list[tuple[tuple[Message, ...], SamplingParams]] = []
        self.was_abandoned = threading.Event()
        self.threads: set[str] = set()

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        self.threads.add(threading.current_thread().name)
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], params: SamplingParams, /) -> Iterator[Piece]:
        self.threads.add(threading.current_thread().name)
        self.asked.append((tuple(messages), params))
        limit = params.max_tokens or len(self.texts)
        try:
            for i, text in enumerate(self.texts[:limit]):
                self.before(i)
                yield Piece(text, 1, None)
        except GeneratorExit:
            self.was_abandoned.set()
            raise
        yield Piece("", 0, "stop" if limit >= len(self.texts) else "length")


class Running(NamedTuple):
    """A server that accepts connections."""

    url: str
    server: Server
    admin_url: str = ""

    def openai(self, api_key: str = "none") -> openai.OpenAI:
        """A client that does not try again."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=60)

    def post(self, **fields: Any) -> httpx.Response:
        """A chat about nothing much, with these fields changed."""
        body = {"model": "boutique", "messages": [{"role": "user", "content": "Do you open on Sundays?"}], **fields}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)

    def wait_for(self, num_open: int) -> None:
        """Until so many requests are being answered or wait for it."""
        deadline = time.monotonic() + 60
        while self.server._service.num_open != num_open:
            assert time.monotonic() < deadline, f"{self.server._service.num_open} instead of {num_open} requests are open"
            time.sleep(0.01)


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedEngine]:
    return ScriptedEngine


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    """Starts servers for engines by name; all are stopped at the end of the test."""
    stops: list[Callable[[], None]] = []

    def start(
        *,
        drain_timeout_s: float = 10.0,
        grace_s: float = 0.0,
        api_key: str | list[str] | None = None,
        with_admin: bool = False,
        is_awaited: bool = True,
        **options: Any,
    ) -> Running:
        engines = {name: options.pop(name) for name in list(options) if isinstance(options[name], ScriptedEngine)}
        engines |= options.pop("engines", {})
        limits = Limits(**{name: options.pop(name) for name in list(options) if name in Limits.__dataclass_fields__})
        sock = bind("127.0.0.1", 0, has_key=False)
        admin_sock = bind("127.0.0.1", 0, has_key=False) if with_admin else None
        is_ready = threading.Event()
        server = Server(
            create_app(engines, api_key=api_key, limits=limits, **options),
            sock=sock,
            admin_sock=admin_sock,
            drain_timeout_s=drain_timeout_s,
            grace_s=grace_s,
            on_ready=lambda _: is_ready.set(),
        )
        thread = threading.Thread(target=server.run)
        thread.start()

        def stop() -> None:
            server.stop()
            server.stop()
            thread.join(60)
            sock.close()
            if admin_sock is not None:
                admin_sock.close()
            assert not thread.is_alive()

        stops.append(stop)
        assert not is_awaited or is_ready.wait(60)
        return Running(url_of(sock), server, url_of(admin_sock) if admin_sock else "")

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def workspace_keys(tmp_path: Path) -> Keys:
    """The keys of a new workspace."""
    return Store(tmp_path / "work").keys
