"""From a bound socket to a clean exit.

SIGTERM or Ctrl-C: `/readyz` says 503 at once. For `grace_s` requests are still let in, until a load balancer has seen it; then they are
refused, and answers under way may finish; what is left after `drain_timeout_s` ends with an error that its client sees. A second
signal ends them now, and one that comes while the process already ends is not heard: the exit code is 0 in each case.
"""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.errors import UserError
from tunesmith.serve.app import create_admin_app
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.connection import GuardedProtocol
from tunesmith.serve.envelope import MAX_HEADER_BYTES
from tunesmith.serve.service import Service

__all__ = ["Server", "serve"]

_FLUSH_TIMEOUT_S = 5
"""For connections to take the last bytes of their answers."""


def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    admin_host: str = "127.0.0.1",
    admin_port: int | None = None,
    drain_timeout_s: float = 30.0,
    grace_s: float = 0.0,
    on_ready: Callable[[str], None] | None = None,
    ends_process: bool = False,
) -> None:
    """Serve until a signal asks to stop.

    Args:
        app: made by `create_app`.
        host: off this machine only if the app has a key.
        port: 0 takes any free one.
        admin_host: address of the operator's port.
        admin_port: 0 takes any free one; None has no such port.
        drain_timeout_s: how long answers under way may go on when nobody is let in any more.
        grace_s: how long requests are still let in after the first signal.
        on_ready: given the URL once chats are answered; `app.state.admin_url` is then the operator's.
        ends_process: the process is about to end when this returns, and hears no further signal: one would look like a crash.

    Raises:
        UserError: the address cannot be had, or may not be without a key.
        Exception: the model did not load.
    """
    with ExitStack() as stack:
        sock = stack.enter_context(bind(host, port, has_key=app.state.has_key))
        admin_sock = None
        if admin_port is not None:
            admin_sock = stack.enter_context(bind(admin_host, admin_port, has_key=app.state.has_key))
        server = Server(
            app, sock=sock, admin_sock=admin_sock, drain_timeout_s=drain_timeout_s, grace_s=grace_s, on_ready=on_ready
        )
        if ends_process:
            for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn puts its own in their place, and these back when it ends
                signal.signal(number, signal.SIG_IGN)
        server.run()
    if app.state.service.failure is not None:
        raise app.state.service.failure


class Server(uvicorn.Server):
    """uvicorn, but it stops as the module says: `handle_exit` keeps no signal to raise again, which would end us with -15."""

    def __init__(
        self,
        app: FastAPI,
        *,
        sock: socket.socket,
        admin_sock: socket.socket | None = None,
        drain_timeout_s: float,
        grace_s: float = 0.0,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        # Parser and loop are named because `auto` takes whatever happens to be installed.
        config = uvicorn.Config(
            app if admin_sock is None else self._with_admin(app, sock, admin_sock),
            http=GuardedProtocol,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_FLUSH_TIMEOUT_S,
        )
        super().__init__(config)
        self._service: Service = app.state.service
        self._sock = sock
        self._sockets = [sock] if admin_sock is None else [sock, admin_sock]
        self._drain_timeout_s = drain_timeout_s
        self._grace_s = grace_s
        self._let_in_until = self._drain_until = math.inf
        self._on_ready = on_ready

    def stop(self) -> None:
        """Begin to stop; called again, stop now. May be called from a signal handler or another thread."""
        is_second = self._service.is_stopping
        self._service.is_stopping = True
        self._let_in_until = 0.0 if is_second else time.monotonic() + self._grace_s
        self._drain_until = 0.0 if is_second else self._let_in_until + self._drain_timeout_s
        if is_second or not self._grace_s:
            self._service.is_draining = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped."""
        super().run(sockets=sockets or self._sockets)

    def _with_admin(self, app: FastAPI, sock: socket.socket, admin_sock: socket.socket) -> ASGIApp:
        """The operator's app for what comes to its port, the public one for all else."""
        admin = create_admin_app(app, drain=self.stop)
        port = admin_sock.getsockname()[1]
        if port == sock.getsockname()[1]:
            raise UserError(f"the admin port must be another than the public one, {port}")
        app.state.admin_url = url_of(admin_sock)

        async def by_port(scope: Scope, receive: Receive, send: Send) -> None:
            is_admin = scope["type"] != "lifespan" and scope["server"][1] == port
            await (admin if is_admin else app)(scope, receive, send)

        return by_port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and say so if the model is there."""
        await super().startup(sockets=sockets)
        self._tell_if_ready()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        self._tell_if_ready()
        if self._service.is_stopping and time.monotonic() >= self._let_in_until:
            self._service.drain()
            if self._service.num_open == 0 or time.monotonic() >= self._drain_until:
                self._service.abandon_all()
                self.should_exit = True
        if self._service.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)

    def _tell_if_ready(self) -> None:
        if self._on_ready is not None and self._service.is_ready:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(url_of(self._sock))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Called by uvicorn on SIGTERM and SIGINT."""
        self.stop()
