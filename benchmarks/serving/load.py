"""Many clients on the real command while versions are swapped, a canary is shifted and the server is started anew.

    python -m benchmarks.serving.load [--requests 5000] [--clients 64] [--json]

Two versions of the embedded base, which differ in one matrix, are served by `tunesmith serve`. Clients ask without pause, each request on
a connection of its own, and hold every answer to what the version that it names says in the library. Meanwhile, at fixed shares of the
requests: promotion, rollback, a canary of 10 % and then 50 %, and SIGTERM with a new start on the same port.

    wrong        answers that are not those of the version they name
    lost         requests that the server took and did not answer
    malformed    refusals without OpenAI's error object, or 429 and 503 without a `Retry-After` from 1 to 120
    refused      well-formed refusals by code, and connections that the stopped server did not take; all were asked again
    rss_mb       of the server after the first tenth, before the restart, and of the new process at the end
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
from safetensors.torch import load_file, save_file

import tunesmith.model
from tunesmith.pipeline import open_version
from tunesmith.pipeline.versions import MODEL_FACTS
from tunesmith.records import Message, ModelVersion, Role
from tunesmith.store import Store, rollback

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
VERSION = ModelVersion(
    name="shop", number=0, run="", artefact="", weights_digest="", chat_digest="", base_digest="", created_at=""
)
KEY = "load"
MAX_TOKENS = 8
QUESTIONS = tuple(
    f"{verb} {thing}?" for verb in ("What is", "Where is", "Tell me of", "Who made") for thing in ("rain", "a ship", "music")
)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = load(Path(folder), num_requests=chosen.requests, num_clients=chosen.clients)
    if chosen.json:
        sys.stdout.write(orjson.dumps(found).decode() + "\n")
    else:
        sys.stdout.writelines(f"{name:10} {value}\n" for name, value in found.items())


def load(folder: Path, *, num_requests: int, num_clients: int) -> dict[str, Any]:
    """What came of the requests."""
    store = Store(folder / "work")
    for number in (1, 2):
        register(store, number=number)
    point(store, 1)
    board = Board(answers=answers_of(store), num_requests=num_requests)
    with Server(folder, port=free_port()) as server, ThreadPoolExecutor(num_clients) as pool:
        begun = time.monotonic()
        clients = [pool.submit(ask_on, board, server.url, client) for client in range(num_clients)]
        for share, act in disturbances(store, server, board):
            board.wait_for(share)
            act()
        for client in clients:
            client.result()
        seconds = time.monotonic() - begun
        board.rss_mb.append(server.rss_mb())
    return {
        "answers": sum(board.versions.values()),
        "versions": dict(board.versions),
        "wrong": board.wrong,
        "lost": board.lost,
        "malformed": board.malformed,
        "refused": dict(board.refused),
        "rss_mb": board.rss_mb,
        "requests_per_s": round(num_requests / seconds, 1),
    }


@dataclass
class Board:
    """What is to be said, and what was said."""

    answers: dict[tuple[str, str], str]
    num_requests: int
    versions: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    rss_mb: list[int] = field(default_factory=list)
    num_begun: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def next_request(self) -> int | None:
        """The number of a request to make; None when enough are made."""
        with self.changed:
            if self.num_begun == self.num_requests:
                return None
            self.num_begun += 1
            self.changed.notify_all()
            return self.num_begun

    def wait_for(self, share: float) -> None:
        """Until so many of the requests are begun."""
        with self.changed:
            self.changed.wait_for(lambda: self.num_begun >= share * self.num_requests)


def ask_on(board: Board, url: str, client: int) -> None:
    """One client."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(
        base_url=url, timeout=120, limits=limits, trust_env=False, headers={"authorization": f"Bearer {KEY}"}
    ) as http:
        while (number := board.next_request()) is not None:
            question = QUESTIONS[number % len(QUESTIONS)]
            body = {"model": "shop", "messages": [{"role": "user", "content": question}], "user": f"{client}-{number}"}
            while not settle(board, http, body | {"temperature": 0, "max_tokens": MAX_TOKENS}, question):
                time.sleep(0.2)


def settle(board: Board, http: httpx.Client, body: dict[str, Any], question: str) -> bool:
    """Ask once; whether that is the end of it."""
    try:
        response = http.post("/v1/chat/completions", json=body)
    except httpx.ConnectError:
        board.refused["not connected"] += 1
        return False
    except httpx.HTTPError as error:
        board.lost.append(repr(error))
        return True
    told = response.json()
    if response.status_code == 200:
        answer = told["choices"][0]["message"]["content"].strip()
        board.versions[told["model"]] += 1
        if board.answers[told["model"], question] != answer or response.headers["x-model-version"] != told["model"]:
            board.wrong.append(f"{told['model']}: {question} -> {answer}")
        return True
    fault = told.get("error")
    is_whole = isinstance(fault, dict) and {"message", "type", "param", "code"} <= set(fault)
    must_wait = response.status_code in (429, 503)
    if not is_whole or (must_wait and not 1 <= int(response.headers.get("retry-after", 0)) <= 120):
        board.malformed.append(f"{response.status_code} {response.text[:200]}")
    board.refused[str(fault["code"]) if isinstance(fault, dict) else str(response.status_code)] += 1
    return False


def disturbances(store: Store, server: Server, board: Board) -> Iterator[tuple[float, Callable[[], object]]]:
    """What happens, after which share of the requests."""
    yield 0.1, lambda: board.rss_mb.append(server.rss_mb())
    yield 0.2, lambda: point(store, 2)
    yield 0.35, lambda: rollback(store.ledger, "shop", because=(), actor="load")
    yield 0.5, lambda: point(store, 1, arms={"shop@1": 0.9, "shop@2": 0.1})
    yield 0.6, lambda: point(store, 1, arms={"shop@1": 0.5, "shop@2": 0.5})
    yield 0.75, lambda: board.rss_mb.append(server.rss_mb())
    yield 0.8, server.start_anew


class Server:
    """The command, on one port."""

    def __init__(self, folder: Path, *, port: int) -> None:
        self._folder = folder
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Server:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.wait(60) == 0, "SIGTERM ends it with 0"

    def start_anew(self) -> None:
        """SIGTERM, the end, and a new process on the same port."""
        self.__exit__()
        self._start()

    def rss_mb(self) -> int:
        """Resident memory of the process."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20

    def _start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tunesmith",
            "serve",
            "shop",
            "--port",
            str(self._port),
            "--workspace",
            str(self._folder / "work"),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--json"], env={**os.environ, "TUNESMITH_API_KEY": KEY}, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), (self._folder / "log").read_text()[-2000:]


def register(store: Store, *, number: int) -> None:
    """The embedded base as it is, or with one matrix halved."""
    with store.artefacts.publish("model") as staging:
        for file in EMBEDDED.iterdir():
            if file.is_file() and file.suffix != ".safetensors":
                shutil.copyfile(file, staging.path / file.name)
        weights = load_file(EMBEDDED / "model.safetensors")
        name = next(name for name in weights if name.endswith("layers.2.mlp.down_proj.weight"))
        weights[name] = weights[name] / number
        save_file(weights, staging.path / "model.safetensors", metadata={"format": "pt"})
        (staging.path / MODEL_FACTS).write_text('{"base": null, "base_files": null, "max_length": 512}')
    store.ledger.register(replace(VERSION, run=str(number), artefact=staging.artefact.digest))


def answers_of(store: Store) -> dict[tuple[str, str], str]:
    """What each version says in the library."""
    found: dict[tuple[str, str], str] = {}
    for ref in ("shop@1", "shop@2"):
        model = open_version(ref, store=store, max_new_tokens=MAX_TOKENS)
        said = model.generate([(Message(role=Role.USER, content=question),) for question in QUESTIONS])
        found |= {(ref, question): answer.strip() for question, answer in zip(QUESTIONS, said, strict=True)}
    return found


def point(store: Store, version: int, *, arms: dict[str, float] | None = None) -> None:
    """Move the champion, and its traffic."""
    store.ledger.point("shop", alias="champion", version=version, because=(), actor="load", expected_generation=None, arms=arms)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
