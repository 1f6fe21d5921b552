"""One container for SageMaker, Vertex AI and Azure ML: their two paths in front of `tunesmith serve`, which runs beside it on loopback.

    GET  /ping          200 as soon as the model answers, 503 before and while it stops
    POST /invocations   the body decides: `messages` is a chat, `prompt` a completion, `input` an embedding; {"instances": [...]} several
                        of them, answered as {"predictions": [...]}. Without `model` it is the one that is served. Streams are passed on.

The cloud's own gate checks who asks, so clients send no key of ours; the server behind has one that is made anew at each start.

    TUNESMITH_MODEL           what is served
    TUNESMITH_WORKSPACE       where it lies; SageMaker lays a model's files into /opt/ml/model
    AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE   set by Vertex AI; else 8080, /ping, /invocations
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PATHS = {"messages": "/v1/chat/completions", "prompt": "/v1/completions", "input": "/v1/embeddings"}
MAX_INSTANCES = 64
DRAIN_S = 30
"""For answers under way, after SIGTERM."""
STOP_PATIENCE_S = 40.0
"""For the server behind, which then has nothing left to do."""
PASSED_ON = ("content-type", "retry-after", "x-request-id", "x-model-version", "cache-control")


def error(message: str, *, status: int, code: str) -> JSONResponse:
    """OpenAI's error object."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


class Gateway:
    """Passes requests on to the server at `url`."""

    def __init__(self, client: httpx.AsyncClient, *, model: str) -> None:
        self._client = client
        self._model = model

    async def ping(self, _: Request) -> Response:
        """Whether the server behind is ready."""
        try:
            status = (await self._client.get("/readyz", timeout=5)).status_code
        except httpx.HTTPError:
            status = 503
        return Response(status_code=200 if status == 200 else 503)

    async def invoke(self, request: Request) -> Response:
        """One request of any kind, or several."""
        try:
            body = json.loads(await request.body())
        except ValueError:
            return error("The body is not valid JSON.", status=400, code="invalid_json")
        if not isinstance(body, dict):
            return error("The body must be a JSON object.", status=400, code="invalid_type")
        try:
            if isinstance(instances := body.get("instances"), list):
                return await self._several(instances[: MAX_INSTANCES + 1])
            return await self._pass_on(body, request)
        except httpx.HTTPError:
            return error("The model server does not answer.", status=503, code="overloaded")

    async def _several(self, instances: list[Any]) -> Response:
        if len(instances) > MAX_INSTANCES:
            return error(f"At most {MAX_INSTANCES} instances in one request.", status=400, code="invalid_value")
        predictions = []
        for one in instances:
            path = self._path_of(one) if isinstance(one, dict) else None
            if path is None or one.get("stream"):
                return error("Each instance is a request with `messages`, `prompt` or `input`.", status=400, code="invalid_value")
            answer = await self._client.post(path, json=self._named(one))
            if answer.status_code != 200:
                return Response(answer.content, answer.status_code, headers=_kept(answer.headers))
            predictions.append(answer.json())
        return JSONResponse({"predictions": predictions})

    async def _pass_on(self, body: dict[str, Any], request: Request) -> Response:
        path = self._path_of(body)
        if path is None:
            return error("The body needs `messages`, `prompt` or `input`.", status=400, code="missing_required_parameter")
        own = {name: request.headers[name] for name in ("x-request-id",) if name in request.headers}
        asked = self._client.build_request("POST", path, json=self._named(body), headers=own)
        answer = await self._client.send(asked, stream=True)
        return StreamingResponse(_bytes_of(answer), answer.status_code, headers=_kept(answer.headers))

    def _named(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"model": self._model, **body}

    def _path_of(self, body: Mapping[str, Any]) -> str | None:
        return next((path for field, path in PATHS.items() if field in body), None)


def _kept(headers: httpx.Headers) -> dict[str, str]:
    return {name: headers[name] for name in PASSED_ON if name in headers}


async def _bytes_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    """As they come. Whoever goes away closes the connection behind too, which frees the engine."""
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def create_gateway(model: str, environment: Mapping[str, str]) -> Starlette:
    """The application; the server behind it lives as long as it does."""
    port, key = free_port(), secrets.token_urlsafe(32)
    headers = {"authorization": f"Bearer {key}"}
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=600, trust_env=False)
    gateway = Gateway(client, model=model)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        command = [sys.executable, "-m", "tunesmith", "serve", model, "--host", "127.0.0.1", "--port", str(port)]
        server = await asyncio.create_subprocess_exec(*command, env={**environment, "TUNESMITH_API_KEY": key})
        watch = asyncio.create_task(_end_with(server))
        yield
        watch.cancel()
        if server.returncode is None:
            server.terminate()
            await asyncio.wait_for(server.wait(), STOP_PATIENCE_S)
        await client.aclose()

    health, predict = environment.get("AIP_HEALTH_ROUTE", "/ping"), environment.get("AIP_PREDICT_ROUTE", "/invocations")
    routes = [Route(health, gateway.ping, methods=["GET"]), Route(predict, gateway.invoke, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


async def _end_with(server: asyncio.subprocess.Process) -> None:
    """A server that dies takes the container with it, so that the platform starts another."""
    os._exit(await server.wait() or 1)


def main() -> None:
    """Serve until SIGTERM."""
    model = os.environ.get("TUNESMITH_MODEL")
    if not model:
        raise SystemExit("TUNESMITH_MODEL must name the model that is served, such as boutique")
    port = int(os.environ.get("AIP_HTTP_PORT", "8080"))
    app = create_gateway(model, os.environ)
    host = "0.0.0.0"  # noqa: S104 - the platform reaches the container from outside
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=DRAIN_S)


if __name__ == "__main__":
    main()
