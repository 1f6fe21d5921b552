"""Feedback on answers and the figures of `/metrics`, over a real socket and on a real log."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tunesmith.serve.metrics import Metrics, Served
from tunesmith.store import RequestLog, RequestReader

from ..conftest import require_tool
from .whole_engine import WholeEngine

SECRET = "sk-very-secret"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RequestLog]:
    made = RequestLog(tmp_path / "requests.db", max_feedback_per_day=5)
    yield made
    made.close()


@pytest.fixture
def server(running: Callable[..., Any], log: RequestLog) -> Any:
    return running(
        engines={"boutique": WholeEngine()}, on_interaction=log.add, feedback=log, dropped=lambda: log.dropped, api_key=SECRET
    )


def send(server: Any, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, headers={"authorization": f"Bearer {SECRET}"}, timeout=60)


def chat(server: Any, **fields: Any) -> dict[str, Any]:
    body = {"model": "boutique", "messages": [{"role": "user", "content": "Open?"}], **fields}
    return dict(send(server, "/v1/chat/completions", **body).json())


def judge(server: Any, completion: str, **fields: Any) -> httpx.Response:
    return send(server, "/v1/feedback", **{"completion": completion, "kind": "thumbs", "value": True, **fields})


def samples(server: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {SECRET}"}).text
    return {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_what_is_said_of_an_answer_is_found_with_it(server: Any, log: RequestLog, tmp_path: Path) -> None:
    answer = chat(server, n=2, user="ada")
    thumbs = judge(server, answer["id"], id="mine-1", by="ada", rationale="short and right")
    assert (thumbs.status_code, thumbs.json()) == (
        201,
        {"id": "mine-1", "object": "feedback", "completion": answer["id"], "choice": 0, "status": "recorded"},
    )
    assert judge(server, answer["id"], id="mine-1", by="ada", rationale="short and right").status_code == 200
    other = judge(server, answer["id"], id="mine-1", value=False)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")
    corrected = judge(server, answer["id"], choice=1, kind="correction", value="We are closed.", source="human").json()
    assert corrected["id"].startswith("fb-")
    assert judge(server, answer["id"], overrides="mine-1", value=False).status_code == 201
    assert judge(server, answer["id"], overrides="nothing").status_code == 404
    log.close()
    found = list(RequestReader(tmp_path / "requests.db").feedback())
    assert [(one.feedback.interaction, one.feedback.value, one.arm, one.is_overridden) for one in found] == [
        (answer["id"], True, "boutique@1", True),
        (f"{answer['id']}-1", "We are closed.", "boutique@1", False),
        (answer["id"], False, "boutique@1", False),
    ]


def test_feedback_may_come_before_its_answer_but_not_for_what_was_never_one(server: Any) -> None:
    assert judge(server, f"chatcmpl-{'a' * 32}").json()["status"] == "pending"
    for nobody in (f"cmpl-{'a' * 32}", "chatcmpl-1", "'; DROP TABLE feedback"):
        refused = judge(server, nobody)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "completion_not_found")


@pytest.mark.parametrize("num_answers", [1, 2, 16])
def test_a_choice_that_a_completion_never_had_cannot_be_judged(server: Any, num_answers: int) -> None:
    answer = chat(server, n=num_answers)
    assert judge(server, answer["id"], choice=num_answers - 1).status_code == 201
    if num_answers < 16:
        refused = judge(server, answer["id"], choice=num_answers)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (404, "choice_not_found", "choice")
        assert f"no choice {num_answers}" in error["message"]


def test_one_key_may_say_so_much_a_day(server: Any) -> None:
    statuses = [judge(server, f"chatcmpl-{'a' * 32}") for _ in range(6)]
    assert [one.status_code for one in statuses] == [201] * 5 + [429]
    assert int(statuses[-1].headers["retry-after"]) in range(1, 121)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"kind": "stars"}, "kind"),
        ({"value": "yes"}, "value"),
        ({"kind": "number", "value": 2e9}, "value"),
        ({"kind": "text", "value": ""}, "value"),
        ({"kind": "correction", "value": " \n\u2003"}, "value"),
        ({"kind": "category", "value": " "}, "value"),
        ({"kind": "category", "value": "x" * 257}, "value"),
        ({"id": "a b"}, "id"),
        ({"source": "cat"}, "source"),
        ({"choice": 16}, "choice"),
        ({"score": 1}, "score"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(server: Any, fields: dict[str, Any], param: str) -> None:
    refused = judge(server, f"chatcmpl-{'a' * 32}", **fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_metrics_count_requests_answers_tokens_and_times(server: Any, log: RequestLog) -> None:
    chat(server, n=2, user="ada")
    chat(server, model="nobody")
    send(server, "/v1/completions", model="boutique", prompt="abc", stream=True, max_tokens=4)
    httpx.get(f"{server.url}/v1/models")  # no key
    for path in ("/wp-admin.php", "/v1/models/made-up-1", "/v1/models/made-up-2"):
        httpx.get(f"{server.url}{path}", headers={"authorization": f"Bearer {SECRET}"})
    judge(server, f"chatcmpl-{'a' * 32}")
    found = samples(server)
    model = {("model", "boutique"), ("version", "boutique@1")}

    def value(name: str, *labels: tuple[str, str]) -> float:
        return found[f"tunesmith_{name}", frozenset(labels)]

    assert value("requests_total", ("route", "/v1/chat/completions"), ("status", "2xx"), *model) == 1
    assert value("requests_total", ("route", "/v1/chat/completions"), ("status", "4xx")) == 1
    assert value("requests_total", ("route", "/v1/completions"), ("status", "2xx"), *model) == 1
    assert value("requests_total", ("route", "/v1/models"), ("status", "4xx")) == 1
    assert value("requests_total", ("route", "other"), ("status", "4xx")) == 1
    assert value("requests_total", ("route", "/v1/models/{name:path}"), ("status", "4xx")) == 2
    assert value("answers_total", ("finish_reason", "stop"), *model) == 2
    assert value("answers_total", ("finish_reason", "length"), *model) == 1
    assert value("prompt_tokens_total", *model) == 5 + 4
    assert value("completion_tokens_total", *model) == 5 + 5 + 4
    assert value("time_to_first_token_seconds_count", *model) == 3
    assert value("time_per_output_token_seconds_count", *model) == 3
    assert value("queue_wait_seconds_count", *model) == 2
    assert value("feedback_total", ("kind", "thumbs")) == 1
    assert value("kv_cache_used_bytes", ("version", "boutique@1")) == 1000
    assert value("queue_length", ("version", "boutique@1")) == 0
    assert value("log_dropped_total", ("what", "content")) == 0
    assert ("process_resident_memory_bytes", frozenset()) in found
    told = {text for _, labels in found for _, text in labels}
    assert not {text for text in told if "ada" in text or "made-up" in text or "nobody" in text or SECRET in text}


def test_a_broken_and_an_abandoned_answer_are_counted_as_such(running: Callable[..., Any], scripted: Any) -> None:
    def breaks(index: int) -> None:
        raise RuntimeError("broken")

    server = running(boutique=scripted("a", before=breaks))
    assert server.post().status_code == 500
    page = httpx.get(f"{server.url}/metrics").text
    assert 'tunesmith_answers_total{arm="",finish_reason="error",model="boutique",version="boutique@1"} 1.0' in page
    assert 'status="5xx"' in page


def test_versions_without_end_do_not_make_series_without_end() -> None:
    metrics = Metrics(list)
    for number in range(1000):
        metrics.answered(Served("boutique", f"boutique@{number}"), finish_reason="stop")
    page = metrics.page().decode()
    assert page.count("tunesmith_answers_total{") == 201
    assert 'tunesmith_answers_total{arm="",finish_reason="stop",model="other",version="other"} 800.0' in page


def test_promtool_finds_nothing_to_say(server: Any) -> None:
    promtool = require_tool("promtool")
    chat(server)
    page = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {SECRET}"}).content
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
