"""Official clients against a real server, each in a process of its own and in an interpreter that has it.

The newest openai package is installed beside tunesmith. The others have environments of their own, because they bring much with them: the
slow tests look for them in the folder that `TUNESMITH_CLIENTS` names, and make there what is missing, from the package index.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

import tunesmith.model
from tunesmith.data.chat import ChatFormat
from tunesmith.model import load_model, this_machine
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.serve.app import create_app
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.engine import Engine
from tunesmith.serve.lifecycle import Server
from tunesmith.serve.refusal import Refusal, refusal_response

CALLS = Path(__file__).with_name("clients")
ROOT = Path(__file__).parents[2]
EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
KEY = "sk-right"
WORDS = ("We ", "are ", "closed ", "on ", "Sundays.")
OBJECT = ('{"day": "Sunday", ', '"is_open": false}')


def checks(client: str) -> list[str]:
    """The names of a client's checks, without importing it."""
    tree = ast.parse((CALLS / f"{client}_calls.py").read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")]


def refuse_once(app: ASGIApp) -> ASGIApp:
    """Refuse a request whose `x-refuse-id` is new with the status in `x-refuse`, as quotas and full queues do."""
    seen: set[bytes] = set()

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers") or ())
        wanted = headers.get(b"x-refuse-id")
        if wanted is None or wanted in seen:
            await app(scope, receive, send)
            return
        seen.add(wanted)
        status = int(headers[b"x-refuse"])
        code = "rate_limit_exceeded" if status == 429 else "overloaded"
        await refusal_response(Refusal("Not now.", status=status, code=code, headers={"Retry-After": "1"}))(scope, receive, send)

    return refusing


def fail_at(index: int) -> Callable[[int], None]:
    def before(i: int) -> None:
        if i == index:
            raise RuntimeError("the engine broke")

    return before


def base() -> Engine:
    """The embedded base."""
    machine = this_machine()
    model = load_model(EMBEDDED, machine=machine)
    return ChatModel(ref="base@1", model=model, chat=ChatFormat.load(EMBEDDED), machine=machine, max_length=256).served()


class World(NamedTuple):
    """A running server, and the engines that tests look at afterwards."""

    url: str
    engines: dict[str, Any]


@contextmanager
def serving(engines: dict[str, Any]) -> Iterator[str]:
    app = create_app(engines, api_key=KEY)
    app.add_middleware(refuse_once)
    sock = bind("127.0.0.1", 0, has_key=True)
    is_ready = threading.Event()
    server = Server(app, sock=sock, drain_timeout_s=10, on_ready=lambda _: is_ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert is_ready.wait(60)
        yield url_of(sock)
    finally:
        server.stop()
        server.stop()
        thread.join(60)
        sock.close()


@pytest.fixture(scope="module")
def world(scripted: type[Any]) -> Iterator[World]:
    def wait_a_little(i: int) -> None:
        if i:
            time.sleep(0.05)

    endless = ("word ",) * 400
    engines = {
        "boutique": scripted(*WORDS),
        "json": scripted(*OBJECT, ref="json@1"),
        "broken": scripted(*WORDS, ref="broken@1", before=fail_at(0)),
        "breaking": scripted(*WORDS, ref="breaking@1", before=fail_at(2)),
        "slow": scripted(*endless, ref="slow@1", max_length=1000, before=wait_a_little),
        "slow_whole": scripted(*endless, ref="slow_whole@1", max_length=1000, before=wait_a_little),
        "base": base(),
    }
    with serving(engines) as url:
        yield World(url, engines)


class Interpreters:
    """Runs a client's checks once for each interpreter, whatever number of tests ask."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._failures: dict[tuple[str, str], dict[str, str]] = {}

    def failures(self, client: str, python: str) -> dict[str, str]:
        if (client, python) not in self._failures:
            done = subprocess.run(
                [python, "-W", "error::DeprecationWarning:__main__", str(CALLS / f"{client}_calls.py"), self._world.url],
                capture_output=True,
                text=True,
                timeout=1500,
                check=False,
                env={**_without_python(os.environ), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"},
            )
            assert done.returncode == 0, done.stderr
            self._failures[client, python] = json.loads(done.stdout.splitlines()[-1])
        return self._failures[client, python]


def _without_python(environment: Any) -> dict[str, str]:
    """Another interpreter is not to find this one's packages."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="module")
def interpreters(world: World) -> Interpreters:
    return Interpreters(world)


OTHERS = {
    "openai_2": ("openai", "openai==2.54.0"),
    "langchain": ("langchain", "langchain-openai==1.7.4"),
    "litellm": ("litellm", "litellm==1.109.1"),
}
"""By the name of its environment: whose checks, and what is installed."""


@pytest.fixture(scope="module")
def python_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The interpreter of an environment, which is made if need be."""
    named = os.environ.get("TUNESMITH_CLIENTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("clients")

    def find(name: str) -> str:
        python = folder / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / name)], check=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--prefer-binary"]
            subprocess.run([*pip, OTHERS[name][1], "pydantic"], check=True)
        return str(python)

    return find


def was_abandoned(world: World, name: str) -> bool:
    return bool(world.engines[name].was_abandoned.wait(10))


@pytest.mark.parametrize("check", checks("openai"))
def test_the_openai_client(check: str, interpreters: Interpreters) -> None:
    assert interpreters.failures("openai", sys.executable)[check] == ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "check"), [(name, check) for name, (client, _) in OTHERS.items() for check in checks(client)])
def test_another_client(name: str, check: str, interpreters: Interpreters, python_of: Callable[[str], str]) -> None:
    assert interpreters.failures(OTHERS[name][0], python_of(name))[check] == ""


def test_a_client_that_leaves_frees_the_engine(world: World, interpreters: Interpreters) -> None:
    interpreters.failures("openai", sys.executable)
    assert was_abandoned(world, "slow")
    assert was_abandoned(world, "slow_whole")


def test_a_schema_that_a_client_makes_of_a_class_reaches_the_engine(world: World, interpreters: Interpreters) -> None:
    interpreters.failures("openai", sys.executable)
    # Any object will do for a client that asks in JSON mode.
    schemas = [params.schema for _, params in world.engines["json"].asked if "properties" in params.schema]
    assert schemas
    assert all(set(schema["properties"]) == {"day", "is_open"} for schema in schemas)
