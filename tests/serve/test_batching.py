"""A lane with an engine that answers many at once: streams in turns, one step for all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tunesmith.records import Message
from tunesmith.serve.engine import BatchingEngine, Piece, SamplingParams, Wait


class Together:
    """Repeats a conversation word by word, one word of every stream a step."""

    def __init__(self, *, max_running: int = 4, before_step: Callable[[int], object] = lambda _: None) -> None:
        self.ref = "boutique@1"
        self.max_length = 1000
        self.max_running = max_running
        self.num_steps = 0
        self.num_reset = 0
        self.most_at_once = 0
        self.num_abandoned = 0
        self.told: list[str] = []
        self._before_step = before_step
        self._ready: dict[tuple[int, int], int] = {}

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        return len(messages)

    def stream(self, messages: Sequence[Message], params: SamplingParams, /) -> Iterator[Piece | Wait]:
        words, key = messages[-1].content.split()[params.row :], (id(messages), params.row)
        self._ready[key] = 0
        done = False
        try:
            for index, word in enumerate(words):
                while self._ready[key] <= index:
                    yield Wait.FOR_STEP
                self.told.append(word)
                yield Piece(f"{word} ", 1, None)
            done = True
            yield Piece("", 0, "stop")
        finally:
            self.num_abandoned += not done
            self._ready.pop(key, None)

    def step(self) -> None:
        self._before_step(self.num_steps)
        self.num_steps += 1
        self.most_at_once = max(self.most_at_once, len(self._ready))
        for key in self._ready:
            self._ready[key] += 1

    def reset(self) -> None:
        self.num_reset += 1
        self._ready.clear()


def ask(url: str, text: str, **fields: Any) -> httpx.Response:
    body = {"model": "boutique", "messages": [{"role": "user", "content": text}], **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def answer(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(("max_running", "most"), [(4, 4), (2, 2), (1, 1)])
def test_many_clients_are_answered_in_turns_and_each_with_its_own(max_running: int, most: int, running) -> None:
    all_there = threading.Event()
    engine = Together(max_running=max_running, before_step=lambda step: all_there.wait(60) if step == 0 else None)
    assert isinstance(engine, BatchingEngine)
    server = running(engines={"boutique": engine})
    texts = [" ".join(f"{name}{i}" for i in range(12)) for name in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, server.url, text) for text in texts]
        server.wait_for(4)
        all_there.set()
        assert [answer(one.result()).split() for one in answers] == [text.split() for text in texts]
    assert engine.most_at_once == most
    if max_running == 4:  # nobody waited for the end of another
        last_beginnings = max(engine.told.index(f"{name}0") for name in "abcd")
        assert last_beginnings < min(engine.told.index(f"{name}11") for name in "abcd")
    assert engine.num_steps <= 12 * -(-4 // max_running) + 4


def test_who_hangs_up_makes_room_and_disturbs_nobody(running) -> None:
    both, goes_on = threading.Event(), threading.Event()
    engine = Together(
        max_running=2, before_step=lambda step: (both.wait if step == 0 else goes_on.wait)(60) if step in (0, 5) else None
    )
    server = running(engines={"boutique": engine}, keep_alive_s=0.1)  # the headers come with the first comment, before any step
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask, server.url, "u " * 40)
        server.wait_for(1)
        with httpx.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={"model": "boutique", "messages": [{"role": "user", "content": "w " * 500}], "stream": True},
            timeout=60,
        ) as response:
            server.wait_for(2)
            both.set()
            assert next(line for line in response.iter_lines() if line.startswith("data: "))
        server.wait_for(1)  # the server has noticed
        goes_on.set()
        assert answer(other.result()).split() == ["u"] * 40
    server.wait_for(0)
    assert engine.num_abandoned == 1
    assert engine.told.count("w") < 400


def test_a_step_that_fails_fails_all_who_waited_and_none_who_come_after(running) -> None:
    all_there = threading.Event()

    def before(step: int) -> None:
        if step == 0:
            assert all_there.wait(60)
        if step == 2:
            raise RuntimeError("the machine has no memory left")

    engine = Together(before_step=lambda step: before(step) if not engine.num_reset else None)
    server = running(engines={"boutique": engine})
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask, server.url, "u v w x y z") for _ in range(2)]
        server.wait_for(2)
        all_there.set()
        for one in answers:
            assert one.result().status_code == 500
            assert one.result().json()["error"]["code"] == "server_error"
    assert engine.num_reset == 1
    assert answer(ask(server.url, "well again")).split() == ["well", "again"]


def test_a_stop_string_ends_one_answer_and_not_the_others(running) -> None:
    server = running(engines={"boutique": Together()})
    with ThreadPoolExecutor(2) as pool:
        stopped = pool.submit(ask, server.url, "one two three four", stop=["two"])
        whole = pool.submit(ask, server.url, "one two three four")
        assert answer(stopped.result()) == "one "
        assert answer(whole.result()).split() == ["one", "two", "three", "four"]


def test_more_than_run_and_wait_are_refused(running) -> None:
    goes_on = threading.Event()
    engine = Together(max_running=2, before_step=lambda step: goes_on.wait(60) if step == 0 else None)
    server = running(engines={"boutique": engine}, max_queue=1)
    with ThreadPoolExecutor(3) as pool:
        answers = []
        for num in (1, 2, 3):
            answers.append(pool.submit(ask, server.url, "a b"))
            server.wait_for(num)
        refused = ask(server.url, "a b")
        goes_on.set()
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert [answer(one.result()).split() for one in answers] == [["a", "b"]] * 3


def test_several_answers_to_one_request_come_side_by_side_whole_or_streamed(running) -> None:
    """The engine leaves out as many words as the number of the answer."""
    heard: list[Any] = []
    server = running(engines={"boutique": Together()}, on_interaction=heard.append)
    with server.openai() as client:
        asked: dict[str, Any] = {"model": "boutique", "messages": [{"role": "user", "content": "one two three"}], "n": 3}
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    expected = ["one two three", "two three", "three"]
    assert [choice.message.content.strip() for choice in whole.choices] == expected
    assert [(choice.index, choice.finish_reason) for choice in whole.choices] == [(0, "stop"), (1, "stop"), (2, "stop")]
    assert whole.usage.completion_tokens == chunks[-1].usage.completion_tokens == 6
    streamed = [
        "".join(c.choices[0].delta.content or "" for c in chunks[:-1] if c.choices[0].index == i).strip() for i in range(3)
    ]
    assert streamed == expected
    assert [sum(c.choices[0].finish_reason is not None for c in chunks[:-1] if c.choices[0].index == i) for i in range(3)] == [
        1,
        1,
        1,
    ]
    assert len({interaction.id for interaction in heard}) == 6
