"""The annotation page, and the page for judging pairs: one person, one keyboard, one row at a time. Knows no rows; a `Desk` has them.

It listens on this machine only. Whoever opens it needs the token in the address that the terminal shows, and requests that another
web page makes, by its own name for this machine or across origins, are refused.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib.resources import files
from types import FrameType
from typing import Any, Protocol
from urllib.parse import parse_qs

import orjson
import uvicorn
from fastapi import FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.errors import NotFound, OutOfSpace, UserError
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.envelope import with_request_id
from tunesmith.serve.own_names import require_own_name
from tunesmith.serve.refusal import Refusal, json_response, refusal_of, refusal_response

__all__ = ["AnnotationDesk", "PageName", "create_annotation_app", "page_text", "serve_annotation"]

_MAX_BODY = 4 * 1024 * 1024
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address has the token in it
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class AnnotationDesk(Protocol):
    """Who has the rows and keeps the decisions. Every call may block; values are plain JSON."""

    def next(self, by: str, *, passing: Sequence[str]) -> dict[str, Any]:
        """The row to show next."""
        ...

    def show(self, row: str, *, by: str) -> dict[str, Any]:
        """A row that was shown before."""
        ...

    def decide(self, row: str, *, by: str, kind: str, value: str) -> dict[str, Any]:
        """Keep a decision; it is on the disk when this returns."""
        ...

    def undo(self, by: str) -> dict[str, Any]:
        """Take the newest decision back."""
        ...


class PageName(StrEnum):
    """Which page is served; both speak the same API."""

    ANNOTATE = "annotate.html"
    JUDGE = "judge.html"


def create_annotation_app(desk: AnnotationDesk, *, token: str, by: str, name: PageName = PageName.ANNOTATE) -> FastAPI:
    """Make the page and what it asks for.

    Args:
        desk: has the rows.
        token: every request must bear it as `?token=`.
        by: the annotator whom the page greets; it can be changed there.
        name: which page.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    actions = _Actions(desk)
    routes = {"/api/next": actions.next, "/api/show": actions.show, "/api/decide": actions.decide, "/api/undo": actions.undo}

    def page(_: Request) -> Response:
        return _page(by, name=name)

    app.router.routes.append(Route("/", page, methods=["GET"]))
    for path, action in routes.items():
        app.router.routes.append(Route(path, _posted(action), methods=["POST"]))
    for kind in (Refusal, UserError):
        app.add_exception_handler(kind, _on_error)
    # The last added is the outermost.
    app.add_middleware(_require_token, token=token)
    app.add_middleware(require_own_name, names=frozenset(), has_keys=False)
    app.add_middleware(with_request_id)
    return app


def serve_annotation(
    desk: AnnotationDesk, *, by: str, port: int, on_ready: Callable[[str], None], name: PageName = PageName.ANNOTATE
) -> None:
    """Serve the page on this machine until Ctrl-C or SIGTERM.

    Args:
        desk: has the rows.
        by: the annotator whom the page greets.
        port: 0 takes any free one.
        on_ready: given the address with its token once connections are accepted.
        name: which page.

    Raises:
        UserError: the port cannot be had.
    """
    token = secrets.token_urlsafe(24)
    with bind("127.0.0.1", port, has_key=False) as sock:
        _Server(create_annotation_app(desk, token=token, by=by, name=name), sock=sock, token=token, on_ready=on_ready).run()


class _Server(uvicorn.Server):
    """uvicorn, but a signal only stops it: `handle_exit` keeps none to raise again, so the exit code is 0."""

    def __init__(self, app: FastAPI, *, sock: socket.socket, token: str, on_ready: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._sock = sock
        self._token = token
        self._on_ready = on_ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped."""
        super().run(sockets=sockets or [self._sock])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then say so."""
        await super().startup(sockets=sockets)
        self._on_ready(f"{url_of(self._sock)}/?token={self._token}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Called by uvicorn on SIGTERM and SIGINT."""
        self.should_exit = True


class _Actions:
    """What the page can ask for."""

    def __init__(self, desk: AnnotationDesk) -> None:
        self._desk = desk

    def next(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The row to show next."""
        passing = asked.get("passing", [])
        if not isinstance(passing, list) or not all(isinstance(row, str) for row in passing):
            raise Refusal("`passing` is no list of rows.", param="passing", code="invalid_value")
        return self._desk.next(_text(asked, "by"), passing=passing)

    def show(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A row that was shown before."""
        return self._desk.show(_text(asked, "row"), by=_text(asked, "by"))

    def decide(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Keep a decision."""
        return self._desk.decide(
            _text(asked, "row"), by=_text(asked, "by"), kind=_text(asked, "kind"), value=_text(asked, "value", may_be_empty=True)
        )

    def undo(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Take the newest decision back."""
        return self._desk.undo(_text(asked, "by"))


def _posted(action: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
    from starlette.concurrency import run_in_threadpool

    async def answer(request: Request) -> Response:
        asked = await _object(request)
        return json_response(await run_in_threadpool(action, asked), headers=_HEADERS)

    return answer


async def _object(request: Request) -> dict[str, Any]:
    """The body, a JSON object. Its declared kind is one that a form of another page cannot send."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal("The body must be application/json.", status=415, code="not_json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise Refusal("The body is larger than 4 MiB.", status=413, code="too_large")
    try:
        asked = orjson.loads(body)
    except ValueError:
        raise Refusal("The body is not valid JSON.", code="not_json") from None
    if not isinstance(asked, dict):
        raise Refusal("The body must be a JSON object.", code="not_json")
    return asked


def _text(asked: dict[str, Any], key: str, *, may_be_empty: bool = False) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise Refusal(f"`{key}` is missing or no text.", param=key, code="invalid_value")
    return value.strip() if key == "by" else value


def page_text(name: PageName) -> str:
    """A page with the style and script that all pages share; still without its nonce and the person's name."""
    read = {part: files("tunesmith.serve").joinpath(part).read_text(encoding="utf-8") for part in (name, "page.css", "page.js")}
    return read[name].replace("{{style}}", read["page.css"]).replace("{{common}}", read["page.js"])


def _page(by: str, *, name: PageName) -> Response:
    """The page, whose one script and style may run because they bear this answer's number."""
    nonce = secrets.token_urlsafe(16)
    text = page_text(name)
    # A name in a script is JSON, in which `<` is written so that no tag can begin.
    known_as = orjson.dumps(by).decode().replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    content = text.replace("{{nonce}}", nonce).replace("{{by}}", known_as)
    return Response(content, media_type="text/html; charset=utf-8", headers={**_HEADERS, "Content-Security-Policy": policy})


def _require_token(app: ASGIApp, *, token: str) -> ASGIApp:
    """Let only requests through that bear the token and come from the page itself, or from no page at all."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if len(given) != 1 or not secrets.compare_digest(given[0].encode(), token.encode()):
            message = "Open the address that the terminal shows, with its token."
            refusal = Refusal(message, status=403, code="invalid_token")
        elif not _is_same_origin(HTTPConnection(scope)):
            refusal = Refusal("Another web page may not ask this.", status=403, code="origin_not_allowed")
        else:
            await app(scope, receive, send)
            return
        await refusal_response(refusal)(scope, receive, send)

    return guarded


def _is_same_origin(connection: HTTPConnection) -> bool:
    """A browser names the page that asks in Origin, and it must be ours; other clients send none."""
    origins = connection.headers.getlist("origin")
    return not origins or origins == [f"http://{connection.headers.get('host', '')}"]


async def _on_error(request: Request, error: Exception) -> Response:
    return refusal_response(_refusal(error, request_id=request.state.request_id))


def _refusal(error: Exception, *, request_id: str) -> Refusal:
    """What the page says of an error: it speaks to the user of this machine, so ours are told as they are."""
    if isinstance(error, OutOfSpace):
        return Refusal(f"Not saved: {error}", status=507, code="out_of_space")
    if isinstance(error, UserError):
        return Refusal(str(error), status=404 if isinstance(error, NotFound) else 400, code="invalid_value")
    return refusal_of(error, request_id=request_id)
