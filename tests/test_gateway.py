"""The container for SageMaker, Vertex AI and Azure ML: a process of its own, with a stand-in for the server behind it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

GATEWAY = Path(__file__).parents[1] / "deploy" / "cloud" / "gateway.py"
STAND_IN = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

notes = Path(os.environ["NOTES"])

class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        for name, value in {"content-type": kind, "x-model-version": "boutique@1", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200 if self.path == "/readyz" else 404, b"{}")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("prompt") == "die":
            os._exit(3)
        if self.headers["authorization"] != "Bearer " + os.environ["TUNESMITH_API_KEY"] or body.get("prompt") == "refuse":
            self.answer(503, b'{"error": {"message": "Not now."}}', **{"retry-after": "7"})
        elif body.get("stream"):
            self.answer(200, b"data: one\\n\\ndata: [DONE]\\n\\n", "text/event-stream; charset=utf-8")
        else:
            self.answer(200, json.dumps({"path": self.path, "body": body}).encode())

    def log_message(self, *_):
        pass

def stop(*_):
    (notes / "stopped").touch()
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
(notes / "argv").write_text(json.dumps(sys.argv[1:]))
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


class Container:
    def __init__(self, folder: Path, **variables: str) -> None:
        package = folder / "tunesmith"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(STAND_IN)
        self.notes = folder
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        own = {"PYTHONPATH": str(folder), "NOTES": str(folder), "AIP_HTTP_PORT": str(port), "TUNESMITH_MODEL": "boutique"}
        self.process = subprocess.Popen([sys.executable, str(GATEWAY), "serve"], env={**os.environ, **own, **variables})

    def wait_until_ready(self, path: str = "/ping") -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                status = httpx.get(self.url + path, timeout=60).status_code
            except httpx.TransportError:
                status = 0
            if status == 200:
                return
            assert status in (0, 503)
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Not by SIGKILL, after which the server behind would live on."""
        self.process.terminate()
        self.process.wait(60)

    def invoke(self, body: Any, path: str = "/invocations") -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, headers={"content-type": "application/json"}, timeout=60)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path)
    made.wait_until_ready()
    yield made
    made.stop()


def test_requests_find_their_path_and_their_model(container: Container) -> None:
    assert json.loads((container.notes / "argv").read_text())[:4] == ["serve", "boutique", "--host", "127.0.0.1"]
    for field, path in {"messages": "/v1/chat/completions", "prompt": "/v1/completions", "input": "/v1/embeddings"}.items():
        answer = container.invoke({field: "x", "seed": 1})
        assert answer.json() == {"path": path, "body": {"model": "boutique", field: "x", "seed": 1}}
        assert answer.headers["x-model-version"] == "boutique@1"
    assert container.invoke({"prompt": "x", "model": "boutique@1"}).json()["body"]["model"] == "boutique@1"
    streamed = container.invoke({"messages": [], "stream": True})
    assert streamed.text == "data: one\n\ndata: [DONE]\n\n"
    assert streamed.headers["content-type"].startswith("text/event-stream")


def test_several_instances_are_answered_in_their_order(container: Container) -> None:
    told = container.invoke({"instances": [{"prompt": "one"}, {"messages": []}], "parameters": {}}).json()
    assert [one["path"] for one in told["predictions"]] == ["/v1/completions", "/v1/chat/completions"]
    for wrong in ([{"prompt": "x", "stream": True}], ["x"], [{}], [{"prompt": "x"}] * 65):
        assert container.invoke({"instances": wrong}).status_code == 400
    busy = container.invoke({"instances": [{"prompt": "refuse"}]})
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "7")


def test_what_makes_no_sense_and_what_is_refused_is_told_in_one_shape(container: Container) -> None:
    for body in (b"{", b"[]", b"{}", b"\xff"):
        refused = container.invoke(body)
        assert refused.status_code == 400
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    busy = container.invoke({"prompt": "refuse"})
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "7")
    assert busy.json() == {"error": {"message": "Not now."}}


def test_a_stop_reaches_the_server_behind(container: Container) -> None:
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(60) in (0, -signal.SIGTERM)
    assert (container.notes / "stopped").exists()


def test_a_server_that_dies_ends_the_container(container: Container) -> None:
    with contextlib.suppress(httpx.TransportError):
        container.invoke({"prompt": "die"})
    assert container.process.wait(60) == 3


def test_paths_that_the_platform_names_are_heeded(tmp_path: Path) -> None:
    made = Container(tmp_path, AIP_HEALTH_ROUTE="/health", AIP_PREDICT_ROUTE="/predict")
    try:
        made.wait_until_ready("/health")
        assert made.invoke({"prompt": "x"}, "/predict").json()["path"] == "/v1/completions"
        assert made.invoke({"prompt": "x"}).status_code == 404
    finally:
        made.stop()


def test_a_container_without_a_model_says_so() -> None:
    variables = {name: value for name, value in os.environ.items() if name != "TUNESMITH_MODEL"}
    told = subprocess.run([sys.executable, str(GATEWAY)], env=variables, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "TUNESMITH_MODEL" in told.stderr
