"""Quotas by a clock that the test turns, and over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator

import httpx
import pytest

from tunesmith.serve.engine import Engine, Wait
from tunesmith.serve.lane import Lane, Load
from tunesmith.serve.quotas import Charge, Meter
from tunesmith.serve.refusal import Refusal
from tunesmith.store import Quotas, Scope
from tunesmith.store.api_keys import ApiKey

from .whole_engine import WholeEngine


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(clock: Clock, **quotas: int) -> Meter:
    key = ApiKey(
        prefix="ts_x", digest="", name="x", scopes=frozenset({Scope.INFER}), created_at="", quotas=Quotas(**quotas)
    )  # fmt: skip
    return Meter(key, clock=clock)


def reserve(charge: Charge, prompt: int, new: int = 0) -> None:
    charge.reserve(num_prompt_tokens=prompt, num_new_tokens=new)


def test_requests_fill_up_evenly_and_retry_after_is_when_the_next_fits(clock: Clock) -> None:
    one = meter(clock, requests_per_minute=6)
    for _ in range(6):
        one.leave(one.enter())
    with pytest.raises(Refusal) as told:
        one.enter()
    assert (told.value.status, told.value.code, told.value.headers) == (429, "rate_limit_exceeded", {"Retry-After": "10"})
    clock.now_s += 9.9
    with pytest.raises(Refusal) as told:
        one.enter()
    assert told.value.headers["Retry-After"] == "1"
    clock.now_s += 0.1
    one.leave(one.enter())
    assert one.headers() == {
        "x-ratelimit-limit-requests": "6",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }
    clock.now_s += 3600
    assert one.headers()["x-ratelimit-remaining-requests"] == "6"
    assert one.headers()["x-ratelimit-reset-requests"] == "0ms"


def test_tokens_are_reserved_and_then_charged_as_they_were_used(clock: Clock) -> None:
    one = meter(clock, tokens_per_minute=600)
    charge = one.enter()
    reserve(charge, 100, 400)
    assert one.headers()["x-ratelimit-remaining-tokens"] == "100"
    with pytest.raises(Refusal) as told:
        reserve(one.enter(), 200)
    assert told.value.headers["Retry-After"] == "10"
    charge.spend(0)
    charge.spend(90)
    charge.spend(10)
    one.leave(charge)
    assert one.headers()["x-ratelimit-remaining-tokens"] == "500"


def test_what_is_used_beyond_the_reservation_is_owed(clock: Clock) -> None:
    one = meter(clock, tokens_per_minute=600)
    charge = one.enter()
    reserve(charge, 10, 90)
    charge.spend(1200)
    one.leave(charge)
    assert one.headers()["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(Refusal) as told:
        reserve(one.enter(), 1)
    assert told.value.headers["Retry-After"] == "61"
    clock.now_s += 61
    reserve(one.enter(), 1)


def test_a_request_that_was_never_begun_costs_nothing_and_one_that_was_left_its_reservation(clock: Clock) -> None:
    one = meter(clock, tokens_per_minute=600)
    refused = one.enter()
    reserve(refused, 10, 90)
    one.leave(refused)
    assert one.headers()["x-ratelimit-remaining-tokens"] == "600"
    left = one.enter()
    reserve(left, 10, 90)
    left.spend(0)
    one.leave(left)
    assert one.headers()["x-ratelimit-remaining-tokens"] == "500"


def test_a_prompt_over_the_quota_is_told_that_it_will_never_fit(clock: Clock) -> None:
    one = meter(clock, tokens_per_minute=100)
    with pytest.raises(Refusal, match="never fit") as told:
        reserve(one.enter(), 101)
    assert told.value.headers == {"Retry-After": "120", "x-should-retry": "false"}
    reserve(one.enter(), 50, 10**9)  # as much as there is; what is used is settled
    assert one.headers()["x-ratelimit-remaining-tokens"] == "0"


def test_requests_at_once_are_counted_until_they_end(clock: Clock) -> None:
    one = meter(clock, concurrent_requests=2)
    first, _ = one.enter(), one.enter()
    with pytest.raises(Refusal, match="2 requests under way"):
        one.enter()
    one.leave(first)
    one.enter()
    assert one.headers() == {}, "no limit, nothing to tell"


def test_over_http_each_key_has_its_own_quota_and_sees_what_is_left(scripted, running, workspace_keys):
    secret = workspace_keys.create("small", scopes=["infer"], quotas=Quotas(tokens_per_minute=300, requests_per_minute=50)).secret
    other = workspace_keys.create("other", scopes=["infer"]).secret
    server = running(boutique=scripted("a", "b", "c"), keys=workspace_keys)
    body = {"model": "boutique", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 100}
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {secret}"}, timeout=60) as client:
        first = client.post("/v1/chat/completions", json=body)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-tokens"] == "300"
        assert 150 <= int(first.headers["x-ratelimit-remaining-tokens"]) <= 200, "while it runs its reservation is held"
        # 3 of the prompt and 3 of the answer were used, and the rest given back.
        shown = client.get("/v1/models")
        assert int(shown.headers["x-ratelimit-remaining-tokens"]) >= 294
        assert shown.headers["x-ratelimit-limit-requests"] == "50"
        refused = client.post("/v1/chat/completions", json=body | {"messages": [{"role": "user", "content": "x " * 1000}]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "120"
        free = client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {other}"})
        assert free.status_code == 200
        assert not [name for name in free.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_no_more_is_reserved_than_an_answer_can_have(path, running, workspace_keys):
    """A client that sends one large bound to every model would wait for a full bucket before each request."""
    secret = workspace_keys.create("small", scopes=["infer"], quotas=Quotas(tokens_per_minute=300)).secret
    engine = WholeEngine()
    engine.max_length = 100
    server = running(engines={"boutique": engine}, keys=workspace_keys)
    content = {"prompt": "a"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "a"}]}
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {secret}"}, timeout=60) as client:
        for _ in range(4):
            assert client.post(path, json={"model": "boutique", "max_tokens": 65_535, **content}).status_code == 200


def test_the_queue_is_bounded_by_the_tokens_of_its_prompts_too(scripted, running):
    go_on = threading.Event()
    server = running(boutique=scripted("a", before=lambda _: go_on.wait(60)), max_queue_tokens=100)
    threads = [threading.Thread(target=server.post) for _ in range(2)]
    try:
        for i, thread in enumerate(threads):
            thread.start()
            server.wait_for(i + 1)
        refused = server.post(messages=[{"role": "user", "content": "word " * 80}])
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "5"
    finally:
        go_on.set()
        for thread in threads:
            thread.join(60)
    assert server.post(messages=[{"role": "user", "content": "word " * 80}]).status_code == 200, "alone it may wait"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_request_that_takes_too_long_is_a_504_and_frees_the_engine(is_streamed, scripted, running):
    go_on = threading.Event()
    engine = scripted("a", "b", before=lambda i: go_on.wait(60) if i else None)
    server = running(boutique=engine, request_timeout_s=0.5)
    answer = server.post(stream=is_streamed)
    if is_streamed:
        assert '"code":"timeout"' in answer.text
        assert "[DONE]" not in answer.text
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    waited = server.post()
    assert waited.status_code == 504, "the time in the queue counts"
    go_on.set()
    assert engine.was_abandoned.wait(10)


def test_a_prompt_that_is_counted_again_is_charged_once(scripted) -> None:
    used = list[int]()
    lane = Lane(scripted(), max_queue=1)

    def produce(engine: Engine, is_abandoned: Callable[[], bool]) -> Generator[int | Wait, None, None]:
        yield 40  # an estimate
        yield 55  # what an upstream has read

    async def ask() -> None:
        with lane.queue(produce, Load(meter=used.append)) as generation:
            assert [await generation.event(), await generation.event()] == [40, 55]

    asyncio.run(ask())
    lane.close(patience_s=5.0)
    assert sum(used) == 55
