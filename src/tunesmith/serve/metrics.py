"""`GET /metrics`: what the server does, in figures that Prometheus reads.

Labels are names that the server knows itself: paths as templates, models that are served, versions. Whatever a client makes up counts as
`other`, so that the number of series is bounded, and no label holds a key or a user's data. Times are as the client sees them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith import __version__
from tunesmith.serve.engine import MeasuredEngine
from tunesmith.serve.lane import Lane

__all__ = ["AnswerTimes", "Metrics", "Served", "metrics_page", "with_metrics"]

_OTHER = "other"
_MAX_VERSIONS = 200
"""That have series of their own; a server that changes its model every day for half a year stays below."""
_MODEL = ("model", "version", "arm")
_TO_FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PER_TOKEN_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
_WAIT_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_DURATION_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Served(NamedTuple):
    """What a request is for. Names that the server gave itself."""

    model: str = ""
    version: str = ""
    arm: str = ""
    """Of the traffic, where it is split."""


@dataclass(slots=True)
class AnswerTimes:
    """Of one answer, from the first byte of its request."""

    to_first_s: float
    total_s: float = 0.0
    num_tokens: int = 0


class Metrics:
    """One server's figures, apart from those of any other in the process.

    `lanes` are asked at each reading; `dropped` gives the rows that the request log could not keep, by what was lost.
    """

    def __init__(self, lanes: Callable[[], Sequence[Lane]], *, dropped: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._versions: set[str] = set()
        Info("tunesmith_build", "The software that answers.", registry=registry).info({"version": __version__})
        self._requests = Counter(
            "tunesmith_requests", "Requests answered or broken off.", ["route", "status", *_MODEL], registry=registry
        )
        self._duration = Histogram(
            "tunesmith_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "status"],
            buckets=_DURATION_S,
            registry=registry,
        )
        self._answers = Counter(
            "tunesmith_answers",
            "Answers by why they ended.",
            ["finish_reason", *_MODEL],
            registry=registry,
        )
        self._to_first = Histogram(
            "tunesmith_time_to_first_token_seconds",
            "From the first byte of a request to the first token of an answer.",
            _MODEL,
            buckets=_TO_FIRST_S,
            registry=registry,
        )
        self._per_token = Histogram(
            "tunesmith_time_per_output_token_seconds",
            "Between the tokens of an answer after its first, on average.",
            _MODEL,
            buckets=_PER_TOKEN_S,
            registry=registry,
        )
        self._wait = Histogram(
            "tunesmith_queue_wait_seconds", "In the queue before the engine began.", _MODEL, buckets=_WAIT_S, registry=registry
        )
        self._tokens_in = Counter("tunesmith_prompt_tokens", "Tokens of prompts that were begun.", _MODEL, registry=registry)
        self._tokens_out = Counter("tunesmith_completion_tokens", "Tokens of answers that ended.", _MODEL, registry=registry)
        self._feedback = Counter("tunesmith_feedback", "Judgements of answers that were kept.", ["kind"], registry=registry)
        registry.register(_Now(lanes, dropped))

    def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

    def request(self, *, route: str, status: str, served: Served, duration_s: float) -> None:
        """Count a request that is over. `status` is a class, such as `2xx`, or `gone` where nobody waited for an answer."""
        self._requests.labels(route, status, *self._bounded(served)).inc()
        self._duration.labels(route, status).observe(duration_s)

    def began(self, served: Served, *, num_prompt_tokens: int, waited_s: float) -> None:
        """Count a prompt that the engine has begun with."""
        labels = self._bounded(served)
        self._tokens_in.labels(*labels).inc(num_prompt_tokens)
        self._wait.labels(*labels).observe(waited_s)

    def answered(self, served: Served, *, finish_reason: str, times: AnswerTimes | None = None) -> None:
        """Count an answer that has ended, with its times where it is whole."""
        labels = self._bounded(served)
        self._answers.labels(finish_reason, *labels).inc()
        if times is None or not times.num_tokens:
            return
        self._tokens_out.labels(*labels).inc(times.num_tokens)
        self._to_first.labels(*labels).observe(times.to_first_s)
        if times.num_tokens > 1:
            self._per_token.labels(*labels).observe((times.total_s - times.to_first_s) / (times.num_tokens - 1))

    def judged(self, *, kind: str) -> None:
        """Count a piece of feedback that was kept."""
        self._feedback.labels(kind).inc()

    def _bounded(self, served: Served) -> Served:
        if served.version not in self._versions:
            if len(self._versions) >= _MAX_VERSIONS:
                return Served(_OTHER, _OTHER, served.arm)
            self._versions.add(served.version)
        return served


class _Now(Collector):
    """What can only be asked when somebody reads."""

    def __init__(self, lanes: Callable[[], Sequence[Lane]], dropped: Callable[[], Mapping[str, int]] | None) -> None:
        self._lanes = lanes
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        lanes = self._lanes()
        yield _gauge("tunesmith_queue_length", "Requests that wait for an engine.", {x.engine.ref: x.num_waiting for x in lanes})
        yield _gauge(
            "tunesmith_running_requests", "Requests an engine is busy with.", {x.engine.ref: x.num_running for x in lanes}
        )
        measured = [lane.engine for lane in lanes if isinstance(lane.engine, MeasuredEngine)]
        what = "Memory that keys and values of running answers"
        yield _gauge("tunesmith_kv_cache_used_bytes", f"{what} hold.", {engine.ref: engine.memory_bytes for engine in measured})
        yield _gauge(
            "tunesmith_kv_cache_limit_bytes", f"{what} may hold.", {engine.ref: engine.max_memory_bytes for engine in measured}
        )
        if self._dropped is not None:
            lost = CounterMetricFamily("tunesmith_log_dropped", "What the request log could not keep.", labels=["what"])
            for what, number in self._dropped().items():
                lost.add_metric([what], number)
            yield lost


def _gauge(name: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=["version"])
    for version, value in values.items():
        gauge.add_metric([version], value)
    return gauge


def with_metrics(app: ASGIApp, *, metrics: Metrics, routes: Sequence[BaseRoute]) -> ASGIApp:
    """Count every request, refused ones too. `routes` are asked for the template of a path; they may grow later."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.monotonic(), "gone"

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)

        try:
            await app(scope, receive, send_counted)
        except Exception:
            status = "5xx"
            raise
        finally:
            served = scope.get("state", {}).get("served", Served())
            metrics.request(route=_template(scope, routes), status=status, served=served, duration_s=time.monotonic() - began)

    return counted


def metrics_page(metrics: Metrics) -> Callable[[Request], Response]:
    """The endpoint."""

    def page(_: Request) -> Response:
        return Response(metrics.page(), headers={"content-type": _CONTENT_TYPE})

    return page


def _template(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    for route in routes:
        # The same path under another method is that route, refused.
        if route.matches(scope)[0] != Match.NONE:
            return str(getattr(route, "path", _OTHER))
    return _OTHER
