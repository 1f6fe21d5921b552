"""Signals, against a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

PROGRAM = """
import os, sys
from tunesmith.serve import Piece, create_app, serve

class Slow:
    ref = "slow@1"
    max_length = 1000
    def count_prompt(self, messages):
        return 1
    def stream(self, messages, params):
        yield Piece("first ", 1, None)
        os.read(0, 1)
        yield Piece("last", 1, None)
        yield Piece("", 0, "stop")

serve(
    create_app({"slow": Slow()}, api_key=None), port=0, drain_timeout_s=float(sys.argv[1]),
    on_ready=lambda url: print(url, flush=True), ends_process=True,
)
"""


BODY = {"model": "slow", "messages": [{"role": "user", "content": "x"}], "stream": True}


@contextmanager
def server(drain_timeout_s: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(drain_timeout_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def half_an_answer(url: str) -> Iterator[Iterator[str]]:
    """The lines of a stream whose first piece has come and whose second waits for a byte on the server's stdin."""
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=BODY, timeout=30) as response:
        lines = response.iter_lines()
        assert any('"content":"first "' in line for line in lines)
        yield lines


def terminate(process: subprocess.Popen[str], url: str) -> None:
    os.kill(process.pid, signal.SIGTERM)
    while httpx.get(f"{url}/readyz", timeout=30).status_code != 503:
        time.sleep(0.01)


def exits_well(process: subprocess.Popen[str]) -> bool:
    assert process.stderr is not None
    return process.wait(30) == 0 and process.stderr.read() == ""


def test_after_sigterm_nobody_is_let_in_and_answers_under_way_are_finished():
    with server(drain_timeout_s=60) as (process, url):
        with half_an_answer(url) as lines:
            terminate(process, url)
            assert httpx.get(f"{url}/livez").status_code == 200
            assert httpx.get(f"{url}/readyz").json()["error"]["code"] == "stopping"
            refused = httpx.post(f"{url}/v1/chat/completions", json=BODY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
            assert refused.headers["retry-after"]
            assert process.stdin is not None
            process.stdin.write("!")
            process.stdin.flush()
            text = "\n".join(lines)
        assert '"content":"last"' in text
        assert text.rstrip().endswith("data: [DONE]")
        assert exits_well(process)


def test_answers_that_outlast_the_drain_time_end_with_an_error_even_if_the_engine_is_stuck():
    with server(drain_timeout_s=0.5) as (process, url):
        with half_an_answer(url) as lines:
            os.kill(process.pid, signal.SIGTERM)
            text = "\n".join(lines)
        assert json.loads(text.strip().removeprefix("data: "))["error"]["code"] == "stopping"
        assert exits_well(process)


def test_a_second_signal_stops_at_once():
    with server(drain_timeout_s=600) as (process, url):
        with half_an_answer(url) as lines:
            terminate(process, url)
            os.kill(process.pid, signal.SIGTERM)
            assert '"code":"stopping"' in "\n".join(lines)
        assert exits_well(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_the_first_signal(number):
    with server(drain_timeout_s=60) as (process, url):
        assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}
        os.kill(process.pid, number)
        assert exits_well(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_come_while_it_ends_change_nothing(number):
    with server(drain_timeout_s=60) as (process, url):
        assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.02)
        assert exits_well(process)
