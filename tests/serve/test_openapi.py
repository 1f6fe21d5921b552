"""The document against the readers of requests, the routes, and a real server that schemathesis asks whatever it can think of."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.test_fine_tuning import Idle

from tunesmith.serve.api_chat import CHAT
from tunesmith.serve.api_server import FEEDBACK, SERVER
from tunesmith.serve.api_tokens import TOKENS
from tunesmith.serve.api_tuning import TUNING
from tunesmith.serve.app import create_app
from tunesmith.serve.embeddings import read_embedding_request
from tunesmith.serve.feedback import read_feedback_request
from tunesmith.serve.fine_tuning import read_job_request
from tunesmith.serve.json_body import read_json
from tunesmith.serve.openapi import api_document
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.wire import read_chat_request
from tunesmith.serve.wire_tokens import read_completion_request, read_detokenize_request, read_tokenize_request
from tunesmith.store import RequestLog, Store

from .whole_engine import WholeEngine

DOCUMENT = api_document([CHAT, TOKENS, SERVER, FEEDBACK, TUNING], has_key=True)
TEXTS = [[{"type": "text", "text": "a"}], [], [{"type": "image_url"}], "a", "", None, 3]
READERS: dict[str, tuple[Callable[[object], object], list[dict[str, Any]]]] = {
    "/v1/chat/completions": (
        read_chat_request,
        [{"model": "m", "messages": [{"role": "user", "content": "a"}]}],
    ),
    "/v1/completions": (
        read_completion_request,
        [{"model": "m", "prompt": "a"}, {"model": "m", "prompt": [1, 2], "echo": True, "max_tokens": 0}],
    ),
    "/tokenize": (read_tokenize_request, [{"prompt": "a"}, {"messages": [{"role": "user", "content": "a"}]}]),
    "/detokenize": (read_detokenize_request, [{"tokens": [1]}]),
    "/v1/embeddings": (read_embedding_request, [{"model": "m", "input": ["a"]}]),
    "/v1/fine_tuning/jobs": (read_job_request, [{"model": "m", "training_file": "file-1"}]),
    "/v1/feedback": (
        read_feedback_request,
        [
            {"completion": f"chatcmpl-{'f' * 32}", "kind": kind, "value": value}
            for kind, value in {"thumbs": True, "number": 1.5, "category": "a", "text": "a", "correction": "a"}.items()
        ],
    ),
}
SHAPE = {"name": "a", "schema": {"type": "object"}, "strict": True}
KNOWN: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 5, 16, 17, 20, 21, -1, 0.5, -0.5, 2.5, 3.0, 300),
    *(2**31 - 1, 2**31, 2**31 + 1, 2**63, -(2**63), -(2**63) - 1),
    *("", "a", "user", "text", "float", "base64", "auto", "none", "medium", "human", "thumbs", "number", "x" * 300, "x" * 1001),
    *([], ["a"], [""], ["a", 1], [1], [[1], "a"], [[]], [-1], [1.0], [1.5], ["text"], ["a"] * 5, ["a"] * 17, [2**31]),
    *({}, {"a": 1}, {"1": 5}, {"1": 101}, {"12345678901": 1}, {"include_usage": True}, {"include_obfuscation": False}),
    *({"type": "text"}, {"type": "json_object", "x": 1}, {"type": "json_schema"}, {"type": "x"}),
    *({"type": "json_schema", "json_schema": SHAPE}, {"type": "json_schema", "json_schema": SHAPE | {"schema": 3}}),
    *([{"role": role, "content": content}] for role in ("user", "developer", "tool", "x") for content in TEXTS),
    [{"role": "assistant", "content": "a", "tool_calls": [], "refusal": None}, {"role": "user", "content": "b"}],
    *([{"role": "user", "content": "a", "name": "b"}], [{"role": "user"}], ["a"]),
    *("a.b-c_1", ".a", "a b", "é", "x" * 63, "x" * 64, {"x" * 64: "y"}, {"x" * 65: "y"}, {"x": "y" * 512}, {"x": "y" * 513}),
    *({str(i): "y" for i in range(num)} for num in (16, 17)),
    *(
        {"n_epochs": 2},
        {"n_epochs": None},
        {"n_epochs": 101},
        {"batch_size": "auto", "x": 1},
        {"learning_rate_multiplier": 0.5},
        {"n_epochs": 1.5},
    ),
    *({"type": "supervised"}, {"type": "dpo"}, {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}),
    *({"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}}, {"type": "supervised", "dpo": None}),
]
VALUES = st.one_of(st.sampled_from(KNOWN), st.integers(-3, 25), st.integers(-3, 25).map(float), st.floats(-3, 3))


def schema_of(path: str) -> dict[str, Any]:
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return {**schema, "components": DOCUMENT["components"]}


def agree(path: str, body: dict[str, Any], validator: jsonschema_rs.Draft202012Validator) -> bool:
    """Whether the reader takes what the schema allows, and nothing else. What crosses the wire is what the reader sees."""
    if body.get("validation_file") is not None and body.get("validation_file") == body.get("training_file"):
        return True  # refused, and a schema cannot say it
    if body.get("hyperparameters") and (body.get("method") or {}) != {}:
        return True  # the same, where they differ
    if body.get("dimensions") is not None:
        return True  # taken where the model's vectors have as many, and a schema cannot say it
    for one, other in (("max_tokens", "max_completion_tokens"), ("best_of", "n")):
        if body.get(one) is not None and body.get(one) == body.get(other):
            return True  # that two fields are equal is taken, and a schema cannot say it
    return takes(READERS[path][0], read_json(json.dumps(body).encode())) is validator.is_valid(body)


def takes(read: Callable[[object], object], body: object) -> bool:
    try:
        read(body)
    except Refusal:
        return False
    return True


def properties_of(schema: Any) -> set[str]:
    """Names that stand anywhere in a schema's own alternatives."""
    found: set[str] = set(schema.get("properties", ()))
    for inner in schema.get("anyOf", ()):
        found |= properties_of(inner)
    if "$ref" in schema:
        found |= properties_of(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return found


@pytest.mark.parametrize("path", READERS)
def test_a_schema_says_of_each_field_what_its_reader_takes_neither_more_nor_less(path: str) -> None:
    schema = schema_of(path)
    validator = jsonschema_rs.Draft202012Validator(schema)
    names = [*sorted(properties_of(schema)), "no_such_field"]
    for body in READERS[path][1]:
        for name in names:
            for value in KNOWN:
                assert agree(path, body | {name: value}, validator), (body, name, value)
            assert agree(path, {key: value for key, value in body.items() if key != name}, validator), (body, name)


@pytest.mark.parametrize("path", READERS)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_schema_agrees_with_its_reader_on_several_fields_at_once(path: str, data: st.DataObject) -> None:
    schema = schema_of(path)
    names = [*sorted(properties_of(schema)), "no_such_field"]
    body = copy.deepcopy(data.draw(st.sampled_from(READERS[path][1])))
    body |= data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=4))
    assert agree(path, body, jsonschema_rs.Draft202012Validator(schema)), body


def test_the_bodies_to_begin_with_are_good() -> None:
    for path, (read, bodies) in READERS.items():
        for body in bodies:
            assert takes(read, body), path
            assert jsonschema_rs.Draft202012Validator(schema_of(path)).is_valid(body), path


def test_the_document_has_every_route_and_no_other(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.db")
    tuning: Any = SimpleNamespace(uploads=None, jobs=None)  # none of its routes is asked
    app = create_app({"boutique": WholeEngine()}, api_key="k", feedback=log, tuning=tuning)
    log.close()
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for route in app.router.routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    document = api_document(app.state.api, has_key=True)
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == routes
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def asked_by_schemathesis(url: str, folder: Path, *, num_examples: int, phases: str) -> str:
    """Its whole command line, every check; requests name the model that is there, else most of them would end at a 404."""
    (folder / "hooks.py").write_text(
        "import schemathesis\n\n\n"
        "@schemathesis.hook\n"
        "def before_load_schema(context, raw_schema):\n"
        "    for name in ('ChatRequest', 'CompletionRequest', 'EmbeddingRequest'):\n"
        "        raw_schema['components']['schemas'][name]['properties']['model'] = {'enum': ['boutique', 'boutique@1']}\n"
    )
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", "all", "--seed", "1"),
        *("--phases", phases),
        *("--exclude-operation-id", "createFile"),  # no schema says that a file must hold rows; test_files.py sends many
        *(
            "--max-examples",
            str(num_examples),
            "--header",
            "Authorization: Bearer k",
            "--no-color",
            "--generation-database",
            "none",
        ),
    ]
    ran = subprocess.run(
        command,
        cwd=folder,
        env={"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("num_examples", "phases"),
    [
        (4, "fuzzing"),
        pytest.param(100, "examples,coverage,fuzzing,stateful", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
    ids=["a few requests", "many requests"],
)
def test_schemathesis_finds_no_fault(running: Callable[..., Any], tmp_path: Path, num_examples: int, phases: str) -> None:
    log = RequestLog(tmp_path / "requests.db", max_feedback_per_day=10**9)
    tuning = Idle(Store(tmp_path / "work"))
    server = running(engines={"boutique": WholeEngine()}, api_key="k", feedback=log, on_interaction=log.add, tuning=tuning)
    told = asked_by_schemathesis(server.url, tmp_path, num_examples=num_examples, phases=phases)
    log.close()
    assert "failure" not in told, told  # a warning says that most ids of files and jobs are not there


def test_the_document_is_served_and_needs_the_key(running: Callable[..., Any]) -> None:
    server = running(engines={"boutique": WholeEngine()}, api_key="k")
    assert httpx.get(f"{server.url}/openapi.json").status_code == 401
    found = httpx.get(f"{server.url}/openapi.json", headers={"authorization": "Bearer k"}).json()
    assert found["openapi"] == "3.1.0"
    assert found["paths"]["/livez"]["get"]["security"] == []
    assert "/v1/feedback" not in found["paths"], "without a log there is none"
