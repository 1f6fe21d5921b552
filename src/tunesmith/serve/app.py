"""The application: routes, layers, and errors in one shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunesmith.records import Interaction
from tunesmith.serve.auth import known_keys, require_key, require_local_host
from tunesmith.serve.chat import ChatCompletions
from tunesmith.serve.completions import Completions, Tokenize
from tunesmith.serve.engine import Engine
from tunesmith.serve.envelope import with_request_id
from tunesmith.serve.refusal import Refusal, clipped, json_response, refusal_of, refusal_response
from tunesmith.serve.service import Service

__all__ = ["create_app"]

_CLOSE_PATIENCE_S = 2.0


def create_app(
    engines: Mapping[str, Engine],
    *,
    api_key: str | Sequence[str] | None,
    on_interaction: Callable[[Interaction], None] | None = None,
    max_queue: int = 64,
    max_body_bytes: int = 4 * 1024 * 1024,
    keep_alive_s: float = 15.0,
) -> FastAPI:
    """Make the API over some engines.

    Args:
        engines: by the name that clients ask for; each is also found by its `ref`. One engine may have several names.
        api_key: one or more keys, any of which is accepted. Without one, only requests addressed to this machine are answered.
        on_interaction: given each finished answer, on the engine's thread, before the client has its end. What it raises is
            logged, and the client has its answer all the same.
        max_queue: requests waiting for one engine; more are refused with 503.
        max_body_bytes: of a request.
        keep_alive_s: longest silence of a streamed answer.

    Raises:
        UserError: no engines, or a key that no client could send.
    """
    keys = known_keys(api_key)
    service = Service(engines, max_queue=max_queue, on_interaction=on_interaction)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close, patience_s=_CLOSE_PATIENCE_S)

    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.service = service
    app.state.has_key = bool(keys)
    chat = ChatCompletions(service, max_body_bytes=max_body_bytes, keep_alive_s=keep_alive_s)
    app.router.routes.append(Route("/v1/chat/completions", chat, methods=["POST"]))
    app.router.routes.append(Route("/v1/completions", Completions(service, max_body_bytes=max_body_bytes), methods=["POST"]))
    app.router.routes.append(Route("/tokenize", Tokenize(service, max_body_bytes=max_body_bytes), methods=["POST"]))
    _add_model_routes(app, service)
    _add_health_routes(app, service)
    app.add_exception_handler(Refusal, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    # The last added is the outermost.
    if keys:
        app.add_middleware(require_key, keys=keys)
    else:
        app.add_middleware(require_local_host)
    app.add_middleware(with_request_id)
    return app


def _add_model_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=None)
    async def list_models() -> Response:
        return json_response({"object": "list", "data": service.cards()})

    @app.get("/v1/models/{name:path}", response_model=None)
    async def show_model(name: str) -> Response:
        return json_response(service.card(name))


def _add_health_routes(app: FastAPI, service: Service) -> None:
    @app.get("/livez", response_model=None)
    async def is_alive() -> Response:
        return json_response({"status": "alive"})

    @app.get("/readyz", response_model=None)
    async def is_ready() -> Response:
        if service.is_draining:
            raise Refusal("The server is stopping.", status=503, code="stopping")
        return json_response({"status": "ready"})


async def _on_error(request: Request, error: Exception) -> Response:
    return refusal_response(refusal_of(error, request_id=request.state.request_id))


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The framework's own 404 and 405."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {clipped(request.scope['path'])}"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message, code = f"{what} is not possible; this path knows another method.", "method_not_allowed"
    else:
        message, code = f"There is no {what} here.", "not_found"
    return refusal_response(Refusal(message, status=error.status_code, code=code, headers=error.headers))
