"""Servers that behave as vLLM, SGLang, llama.cpp's and Ollama document, around a tiny model of transformers, with a place for each defect.

Nothing of ours is in them: the tokenizer is transformers', and an answer is a loop over logits.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

Reply = tuple[int, Any]


@dataclass
class Served:
    """What a server answers with."""

    model: Any
    tokenizer: Any
    stops: tuple[int, ...]
    template: str | None = None
    """In place of the tokenizer's own."""
    adds_bos: bool = False
    """Puts a BOS in front of a conversation, whatever its template prints."""
    window: int = 128
    tells_likelihoods: bool = True
    level: str = "F16"
    key: str | None = None
    asked: list[str] = field(default_factory=list)

    def prompt(self, messages: list[dict[str, str]]) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, chat_template=self.template, tokenize=False, add_generation_prompt=True)
        )

    def read(self, text: str, *, parse: bool = True) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=not parse)["input_ids"])

    def ids(self, messages: list[dict[str, str]]) -> list[int]:
        return ([self.tokenizer.bos_token_id] if self.adds_bos else []) + self.read(self.prompt(messages))

    @torch.no_grad()
    def logs(self, ids: list[int]) -> torch.Tensor:
        """Log-likelihoods (T, V) of what follows each token."""
        return torch.as_tensor(self.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1))

    def answer(self, ids: list[int], limit: int) -> tuple[str, str, list[dict[str, Any]]]:
        """Text, reason of the end, and OpenAI's logprobs of each token."""
        own: list[int] = []
        said: list[dict[str, Any]] = []
        while len(own) < limit and len(ids) + len(own) < self.window:
            logs = self.logs([*ids, *own])[-1]
            token = int(logs.argmax())
            if token in self.stops:
                return self.text(own), "stop", said
            top = logs.topk(20)
            said.append(
                {
                    "token": self.text([token]),
                    "logprob": float(logs[token]),
                    "top_logprobs": [
                        {"token": self.text([i]), "logprob": v}
                        for i, v in zip(top.indices.tolist(), top.values.tolist(), strict=True)
                    ],
                }
            )
            own.append(token)
        return self.text(own), "length", said

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def chat(served: Served, body: dict[str, Any], *, cuts: bool = False) -> Reply:
    """The route that all have. `cuts`: too long a conversation loses its beginning, as at Ollama; else it is refused."""
    ids = served.ids(body["messages"])
    if len(ids) >= served.window and not cuts:
        return 400, {"error": {"message": f"This model's maximum context length is {served.window} tokens.", "code": 400}}
    ids = ids[-(served.window - 1) :]
    text, finish, said = served.answer(ids, body["max_tokens"])
    logprobs = {"content": said} if body.get("logprobs") and served.tells_likelihoods else None
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, "logprobs": logprobs}
    return 200, {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": len(ids)}}


def vllm(served: Served, method: str, path: str, body: dict[str, Any]) -> Reply:
    if path == "/v1/models":
        card = {"id": "tuned", "object": "model", "owned_by": "vllm", "root": "tuned", "max_model_len": served.window}
        return 200, {"object": "list", "data": [card]}
    if body.get("model") not in (None, "tuned"):
        return 404, {"error": {"message": "The model does not exist.", "code": 404}}
    if path == "/tokenize":
        ids = served.ids(body["messages"]) if "messages" in body else served.read(body["prompt"])
        return 200, {"count": len(ids), "max_model_len": served.window, "tokens": ids, "token_strs": None}
    if path == "/v1/completions" and body.get("echo"):
        ids = body["prompt"]
        logs = served.logs(ids)
        values = [None, *(float(logs[i, token]) for i, token in enumerate(ids[1:]))]
        logprobs = {"tokens": [served.text([i]) for i in ids], "token_logprobs": values}
        return 200, {"choices": [{"index": 0, "text": served.text(ids), "logprobs": logprobs, "finish_reason": "length"}]}
    if path == "/v1/chat/completions":
        return chat(served, body)
    return 404, {"detail": "Not Found"}


def sglang(served: Served, method: str, path: str, body: dict[str, Any]) -> Reply:  # noqa: PLR0911 - a route, an answer
    """Its errors are flat; it tokenises texts and no conversations; a completion writes one token at least."""

    def refused(message: str) -> Reply:
        return 400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}

    if path == "/v1/models":
        card = {"id": "tuned", "object": "model", "owned_by": "sglang", "root": "tuned", "max_model_len": served.window}
        return 200, {"object": "list", "data": [card]}
    if path == "/tokenize":
        if "prompt" not in body:
            return refused("1 validation error: prompt: Field required")
        ids = served.read(body["prompt"])
        return 200, {"tokens": ids, "count": len(ids), "max_model_len": served.window}
    if path == "/v1/completions":
        if body.get("max_tokens", 16) <= 0:
            return refused("1 validation error: max_tokens must be positive")
        ids = body["prompt"] if isinstance(body["prompt"], list) else served.read(body["prompt"])
        logs = served.logs(ids)
        values = [None, *(float(logs[i, token]) for i, token in enumerate(ids[1:])), float(logs[-1].max())]
        written = [*ids, int(logs[-1].argmax())]
        logprobs = {"tokens": [served.text([i]) for i in written], "token_logprobs": values}
        choice = {"index": 0, "text": served.text(written), "logprobs": logprobs, "finish_reason": "length", "matched_stop": None}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(ids)}}
    if path == "/v1/chat/completions":
        status, content = chat(served, body)
        return (status, content) if status == 200 else refused(content["error"]["message"])
    return 404, {"detail": "Not Found"}


def llama_cpp(served: Served, method: str, path: str, body: dict[str, Any]) -> Reply:
    if path == "/v1/models":
        return 200, {"object": "list", "data": [{"id": "tuned.gguf", "object": "model", "owned_by": "llamacpp"}]}
    if path == "/tokenize":  # a body without `content` is no error there
        text = body.get("content", "")
        ids = served.read(text, parse=body.get("parse_special", True)) if text else []
        return 200, {"tokens": ([served.tokenizer.bos_token_id] if body.get("add_special") and served.adds_bos else []) + ids}
    if path == "/apply-template":
        return 200, {"prompt": served.prompt(body["messages"])}
    if path == "/v1/completions":  # `echo` is not known, and not refused
        ids = served.read(body["prompt"]) if isinstance(body["prompt"], str) else body["prompt"]
        text, finish, said = served.answer(ids[-100:], 1)
        logprobs = {"content": said} if body.get("logprobs") else None
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(ids)}}
    if path == "/v1/chat/completions":
        return chat(served, body)
    return 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}


def ollama(served: Served, method: str, path: str, body: dict[str, Any]) -> Reply:
    if path == "/v1/models":
        return 200, {"object": "list", "data": [{"id": "tuned:latest", "object": "model", "owned_by": "library"}]}
    if path == "/api/show":
        return 200, {"details": {"family": "llama", "quantization_level": served.level}}
    if path == "/api/generate":
        assert body["raw"] is True
        return 200, {"response": "", "done": True, "prompt_eval_count": len(served.read(body["prompt"]))}
    if path == "/v1/chat/completions":
        return chat(served, body, cuts=True)
    return 404, "404 page not found"


KINDS: dict[str, Callable[[Served, str, str, dict[str, Any]], Reply]] = {
    "vllm": vllm,
    "sglang": sglang,
    "llama.cpp": llama_cpp,
    "ollama": ollama,
}


@contextmanager
def serving(kind: str, served: Served) -> Iterator[str]:
    """The address of such a server."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, method: str) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            served.asked.append(self.path)
            if served.key is not None and self.headers.get("authorization") != f"Bearer {served.key}":
                status, content = 401, {"error": "Unauthorized"}
            else:
                status, content = KINDS[kind](served, method, self.path, body)
            raw = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            self.answer("GET")

        def do_POST(self) -> None:
            self.answer("POST")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
