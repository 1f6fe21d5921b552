"""Servers that behave as vLLM, SGLang, llama-server and others document, over HTTP on a port, with a place for each failure.

They have no model: an answer is a script, or for an adapter what its file says. Nothing of ours is in them.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

BASE = "base-model"
WORDS = ("Yes", ",", " on", " Sundays", " too", ".")


class Asked(NamedTuple):
    method: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class Plain(NamedTuple):
    """An answer that is not streamed."""

    status: int
    content: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never written to


@dataclass
class Fake:
    """What such a server does, and what it was asked."""

    kind: str = "vllm"
    words: tuple[str, ...] = WORDS
    echoes: bool = False
    """Says the last message again, in place of `words`."""
    key: str | None = None
    refuse: Callable[[Asked], Plain | None] = lambda _: None
    """An answer in place of the usual one."""
    first: threading.Event | None = None
    """The first token waits for it; comments are sent meanwhile."""
    pace_s: float = 0.0
    cut_after: int | None = None
    """Tokens after which the stream ends without more; `breaks` tells how."""
    breaks: bool = False
    """The connection is reset in place of ending as it should."""
    finish: str | None = "stop"
    sends_done: bool = True
    sends_usage: bool = True
    fails_after: int | None = None
    """Tokens after which an error event comes."""
    tells_likelihoods: bool = True
    max_model_len: int | None = 128
    is_loading: bool = False
    asked: list[Asked] = field(default_factory=list)
    loaded: dict[str, Path] = field(default_factory=dict)
    cached: dict[str, str] = field(default_factory=dict)
    """What each name stood for when it was first loaded: blocks cached for it then are found again later."""
    downloaded: list[str] = field(default_factory=list)
    """What a relative path made it fetch from the hub."""
    num_open: int = 0
    most_open: int = 0
    num_hung_up: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [asked.body for asked in self.asked if asked.path == path]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.005)


def error(status: int, message: str, **more: Any) -> Plain:
    """The shape that vLLM and llama-server share: the status again in `code`."""
    return Plain(status, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status, **more}})


def flat_error(status: int, message: str) -> Plain:
    """SGLang's shape."""
    return Plain(status, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status})


def unauthorized(fake: Fake) -> Plain:
    if fake.kind == "llama":
        return Plain(401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}})
    return Plain(401, {"error": "Unauthorized"})


def models(fake: Fake) -> Plain:
    card: dict[str, Any] = {"id": BASE, "object": "model", "owned_by": fake.kind, "root": BASE, "parent": None}
    if fake.max_model_len is not None:
        card["max_model_len"] = fake.max_model_len
    adapters = [{"id": name, "object": "model", "root": str(path), "parent": BASE} for name, path in fake.loaded.items()]
    return Plain(200, {"object": "list", "data": [card, *adapters]})


def vllm(fake: Fake, asked: Asked) -> Plain:  # noqa: PLR0911 - a route, an answer
    body = asked.body
    if asked.path == "/health":
        return Plain(200, "")
    if asked.path == "/metrics":
        return Plain(
            200,
            "# HELP vllm:num_requests_running Number of requests.\n# TYPE vllm:num_requests_running gauge\n"
            f'vllm:num_requests_running{{engine="0",model_name="{BASE}"}} 3.0\n'
            "# HELP vllm:num_requests_waiting Waiting.\n# TYPE vllm:num_requests_waiting gauge\n"
            f'vllm:num_requests_waiting{{engine="0",model_name="{BASE}"}} 2.0\n'
            "# HELP vllm:kv_cache_usage_perc 1 is all.\n# TYPE vllm:kv_cache_usage_perc gauge\n"
            f'vllm:kv_cache_usage_perc{{engine="0",model_name="{BASE}"}} 0.25\n',
        )
    if asked.path == "/tokenize":
        ids = list(body["prompt"].encode()) if "prompt" in body else list(range(count_words(body["messages"])))
        return Plain(200, {"count": len(ids), "max_model_len": fake.max_model_len, "tokens": ids, "token_strs": None})
    if asked.path == "/detokenize":
        return Plain(200, {"prompt": bytes(body["tokens"]).decode()})
    if asked.path == "/v1/load_lora_adapter":
        name, path = body["lora_name"], body["lora_path"]
        if name in fake.loaded and not body.get("load_inplace"):
            return error(400, f"The lora adapter '{name}' has already been loaded.")
        if not path.startswith("/"):
            fake.downloaded.append(path)
        elif not (Path(path) / "adapter_config.json").is_file():
            return error(404, f"Loading lora {name} failed: No adapter found for {path}")
        load(fake, name, Path(path))
        return Plain(200, f"Success: LoRA adapter '{name}' added successfully.")
    if asked.path == "/v1/unload_lora_adapter":
        if fake.loaded.pop(body["lora_name"], None) is None:
            return error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return Plain(200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully.")
    return Plain(404, {"detail": "Not Found"})


def sglang(fake: Fake, asked: Asked) -> Plain:  # noqa: PLR0911 - a route, an answer
    body = asked.body
    if asked.path == "/health_generate":
        return Plain(200, "")
    if asked.path == "/metrics":
        ranks = "".join(f'sglang:num_running_reqs{{tp_rank="{rank}"}} {rank + 1}\n' for rank in range(2))
        return Plain(200, "# TYPE sglang:num_running_reqs gauge\n" + ranks)
    if asked.path == "/tokenize":
        ids = list(body["prompt"].encode())
        return Plain(200, {"tokens": ids, "count": len(ids), "max_model_len": fake.max_model_len})
    if asked.path == "/load_lora_adapter":
        if body["lora_name"] in fake.loaded:
            said = f"LoRA adapter {body['lora_name']} is already loaded."
            return Plain(400, {"success": False, "error_message": said, "loaded_adapters": {}})
        load(fake, body["lora_name"], Path(body["lora_path"]))
        return Plain(200, {"success": True, "error_message": "", "loaded_adapters": {}})
    if asked.path == "/unload_lora_adapter":
        found = fake.loaded.pop(body["lora_name"], None)
        return Plain(200 if found else 400, {"success": found is not None, "error_message": "" if found else "not loaded"})
    return Plain(404, {"detail": "Not Found"})


def llama(fake: Fake, asked: Asked) -> Plain:
    if asked.path == "/health":
        loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
        return Plain(503, loading) if fake.is_loading else Plain(200, {"status": "ok"})
    if asked.path == "/props":
        return Plain(200, {"default_generation_settings": {"n_ctx": 96}, "total_slots": 2, "model_path": "/models/base.gguf"})
    if asked.path == "/slots":
        return Plain(200, [{"id": 0, "is_processing": False}, {"id": 1, "is_processing": False}])
    if asked.path == "/lora-adapters":
        return Plain(200, [{"id": 0, "path": "/models/boutique.gguf", "scale": 1.0}])
    return Plain(404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}})


def other(fake: Fake, asked: Asked) -> Plain:
    return Plain(404, {"error": {"message": "no such route", "type": "invalid_request_error", "param": None, "code": None}})


KINDS: dict[str, Callable[[Fake, Asked], Plain]] = {"vllm": vllm, "sglang": sglang, "llama": llama, "openai": other}


def count_words(messages: list[dict[str, str]]) -> int:
    """A token a word, and two for each turn."""
    return sum(len(message["content"].split()) + 2 for message in messages)


def load(fake: Fake, name: str, path: Path) -> None:
    fake.loaded[name] = path
    file = path / "adapter_model.safetensors"
    fake.cached.setdefault(name, file.read_text() if file.is_file() else "from the hub")


def words_for(fake: Fake, body: dict[str, Any]) -> tuple[str, ...] | Plain:
    """What is answered: the script, or what the adapter that is asked for says."""
    if fake.echoes:
        return tuple(f"{word} " for word in body["messages"][-1]["content"].split())
    name = body.get("lora_path") if fake.kind == "sglang" else body.get("model")
    if fake.kind in ("llama", "openai") or name in (BASE, None):
        return fake.words
    if name not in fake.loaded and fake.kind == "sglang":
        return flat_error(400, f"LoRA adapter {name} is not loaded.")
    if name not in fake.loaded:
        return error(404, f"The model `{name}` does not exist.", type="NotFoundError", param="model")
    return tuple(f"{word} " for word in fake.cached[name].split())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def answer(self, method: str) -> None:  # noqa: PLR0911 - a case, an answer
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        asked = Asked(method, self.path, body, {name.lower(): value for name, value in self.headers.items()})
        fake = self.fake
        with fake.lock:
            fake.asked.append(asked)
        if fake.key is not None and asked.headers.get("authorization") != f"Bearer {fake.key}":
            return self.plain(unauthorized(fake))
        if (refused := fake.refuse(asked)) is not None:
            return self.plain(refused)
        if self.path == "/v1/models":
            return self.plain(models(fake))
        if self.path not in ("/v1/chat/completions", "/v1/completions"):
            return self.plain(KINDS[fake.kind](fake, asked))
        words = words_for(fake, body)
        if isinstance(words, Plain):
            return self.plain(words)
        with fake.lock:
            fake.num_open += 1
            fake.most_open = max(fake.most_open, fake.num_open)
        try:
            return self.stream(body, words)
        except OSError:
            with fake.lock:
                fake.num_hung_up += 1
            self.close_connection = True
            return None
        finally:
            with fake.lock:
                fake.num_open -= 1

    def plain(self, plain: Plain) -> None:
        is_text = isinstance(plain.content, str)
        raw = plain.content.encode() if is_text else json.dumps(plain.content).encode()
        self.send_response(plain.status)
        for name, value in plain.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "text/plain" if is_text else "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def stream(self, body: dict[str, Any], words: tuple[str, ...]) -> None:
        fake = self.fake
        words = words[: body.get("max_tokens") or len(words)]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while fake.first is not None and not fake.first.wait(0.02):
            self.send(b": keep-alive\n\n")
        for index, word in enumerate(words):
            if index == fake.fails_after:
                failed = {"error": {"message": "EngineCore died at 0x7f21aa00bb10", "type": "InternalServerError", "code": 500}}
                self.event(failed)
                return self.done()
            if index == fake.cut_after:
                return self.cut()
            time.sleep(fake.pace_s)
            self.event(part(fake, body, index, word=word))
        if len(words) == fake.cut_after:
            return self.cut()
        finish = fake.finish if len(words) < (body.get("max_tokens") or 10**9) or fake.finish is None else "length"
        self.event(part(fake, body, len(words), word="", finish=finish))
        if fake.sends_usage and body.get("stream_options", {}).get("include_usage"):
            # One more than was shown: the token that ends the answer counts too.
            self.event({"object": "chunk", "choices": [], "usage": usage(body, len(words) + 1)})
        return self.done()

    def done(self) -> None:
        if self.fake.sends_done:
            self.send(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        if self.fake.breaks:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(b"0\r\n\r\n")

    def event(self, content: dict[str, Any]) -> None:
        self.send(b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n")

    def send(self, data: bytes) -> None:
        """In two halves, as the network may cut anything anywhere."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n")

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def log_message(self, *_: object) -> None:
        pass


def usage(body: dict[str, Any], num_completion: int) -> dict[str, int]:
    prompt = len(body["prompt"]) if "prompt" in body else count_words(body["messages"])
    return {"prompt_tokens": prompt, "completion_tokens": num_completion, "total_tokens": prompt + num_completion}


def part(fake: Fake, body: dict[str, Any], index: int, *, word: str, finish: str | None = None) -> dict[str, Any]:
    """A chunk, in the shape of the route that was asked."""
    is_chat = "messages" in body
    logprobs = None
    if body.get("logprobs") not in (None, False) and fake.tells_likelihoods and word:
        top = {word: -0.5, "No": -1.5, "Maybe": -2.5}
        if is_chat:
            tops = [{"token": token, "logprob": value, "bytes": None} for token, value in top.items()]
            logprobs = {"content": [{"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": tops}]}
        else:
            logprobs = {"tokens": [word], "token_logprobs": [-0.5], "top_logprobs": [top], "text_offset": [0]}
    choice: dict[str, Any] = {"index": 0, "logprobs": logprobs, "finish_reason": finish}
    choice |= {"delta": {"content": word}} if is_chat else {"text": word}
    chunk: dict[str, Any] = {"id": "x", "object": "chunk", "model": body["model"], "choices": [choice]}
    if body.get("stream_options", {}).get("continuous_usage_stats") and fake.sends_usage:
        chunk["usage"] = usage(body, index + 1)
    return chunk


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here."""


@contextmanager
def serving(fake: Fake) -> Iterator[str]:
    """The address of such a server."""
    server = Server(("127.0.0.1", 0), type("OneHandler", (Handler,), {"fake": fake}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
