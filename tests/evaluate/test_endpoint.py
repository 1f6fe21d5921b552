"""A model behind a URL, asked over real HTTP: what goes wrong is asked again or told, and the key stays secret."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import EndpointError
from tunesmith.evaluate import Arm, Usage
from tunesmith.evaluate.answer_log import AnswerLog
from tunesmith.evaluate.config import EndpointConfig
from tunesmith.evaluate.endpoint import Endpoint, require_key
from tunesmith.records import Message, Role

KEY = "sk-very-secret"


class Reply:
    """What the server says to one request."""

    def __init__(self, content: object = None, *, status: int = 200, raw: str | None = None, **headers: str) -> None:
        self.status = status
        self.headers = headers
        self.body = raw if raw is not None else json.dumps(content)


def answer(text: str | None, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    return {"choices": [{"message": {"role": "assistant", "content": text, **more}}], "usage": usage}


Script = Callable[[dict[str, Any], int], Reply | None]
"""From a request's body and its number to the reply; None closes the connection without one."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()
        self.now = self.most = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.seen.append((self.path, self.headers["authorization"]))
            number = len(self.server.bodies)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        reply = self.server.script(body, number)
        with self.server.lock:
            self.server.now -= 1
        if reply is None:
            self.close_connection = True
            return
        data = reply.body.encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    server = Server(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endpoint(server: Server, *, log: AnswerLog | None = None, max_new_tokens: int = 9, **more: Any) -> Endpoint:
    config = EndpointConfig(**{"name": "other", "url": server.url, "model": "m-1", **more})
    return Endpoint(config, max_new_tokens=max_new_tokens, first_wait_s=0.01, log=log)


def ask(arm: Endpoint, *questions: str, tools: tuple[str, ...] = ()) -> list[str]:
    return arm.generate([[Message(role=Role.USER, content=question)] for question in questions], tools=tools)


def echo(body: dict[str, Any], _number: int) -> Reply:
    return Reply(answer(f"You said {body['messages'][-1]['content']} "))


def test_answers_come_in_the_order_of_the_questions_with_what_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", KEY)
    with serving(echo) as server:
        arm = endpoint(server, key_env="OTHER_KEY")
        questions = [f"q{number}" for number in range(12)]
        assert ask(arm, *questions) == [f"You said {question}" for question in questions]
    assert set(server.seen) == {("/v1/chat/completions", f"Bearer {KEY}")}
    first = server.bodies[0]
    assert first["messages"][0]["role"] == "user"
    assert {key: first[key] for key in ("model", "max_tokens", "temperature")} == {
        "model": "m-1",
        "max_tokens": 9,
        "temperature": 0,
    }
    assert "tools" not in first
    assert [(one.prompt_tokens, one.answer_tokens) for one in arm.last_usage] == [(7, 2)] * 12
    assert all(one.seconds is not None and one.seconds > 0 for one in arm.last_usage)
    assert not isinstance(arm, Arm)  # it gives no likelihoods


def test_half_a_character_at_the_end_of_an_answer_becomes_a_replacement_character() -> None:
    with serving(lambda _body, _number: Reply(raw=json.dumps(answer("Yes \ud83d")))) as server:
        assert ask(endpoint(server), "q") == ["Yes \ufffd"]


def test_four_questions_are_under_way_at_a_time() -> None:
    def slow(body: dict[str, Any], number: int) -> Reply:
        time.sleep(0.05)
        return echo(body, number)

    with serving(slow) as server:
        ask(endpoint(server), *map(str, range(12)))
    assert server.most == 4


@pytest.mark.parametrize(
    "failure",
    [
        Reply({"error": "slow down"}, status=429),
        Reply("boom", status=500),
        Reply(raw="<html>bad gateway</html>", status=502),
        Reply(raw='{"choices": [', status=200),
        Reply([1], status=200),
        Reply({"choices": []}, status=200),
        None,
    ],
    ids=["429", "500", "502", "broken JSON", "a list", "no choice", "closed"],
)
def test_what_passes_is_asked_again(failure: Reply | None) -> None:
    with serving(lambda body, number: echo(body, number) if number > 2 else failure) as server:
        assert ask(endpoint(server), "hello") == ["You said hello"]
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Reply({"error": "slow down"}, status=429), 'status 429: {"error": "slow down"}, 5 times'),
        (Reply("boom", status=500), 'status 500: "boom", 5 times'),
        (Reply(raw='{"choices": [', status=200), "the answer is no JSON"),
        (Reply({"choices": [{"message": {"content": 3}}]}, status=200), "the answer holds no message"),
        (None, "the connection failed"),
    ],
    ids=["429", "500", "broken JSON", "no text", "closed"],
)
def test_what_stays_is_told_with_the_address(failure: Reply | None, said: str) -> None:
    with serving(lambda _body, _number: failure) as server:
        with pytest.raises(EndpointError) as caught:
            ask(endpoint(server), "hello")
        assert f"other at {server.url}/chat/completions: " in str(caught.value)
        assert said in str(caught.value)
    assert len(server.bodies) == 5


def test_retry_after_is_honoured_in_seconds_and_as_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    for value, least in (("0.3", 0.3), (later, 1.0)):
        with serving(
            lambda body, number, value=value: echo(body, number) if number > 1 else Reply({}, status=503, retry_after=value)
        ) as server:
            started = time.monotonic()
            ask(endpoint(server), "hello")
            assert time.monotonic() - started >= least
    with (
        serving(lambda _body, _number: Reply({}, status=429, retry_after="3600")) as server,
        pytest.raises(EndpointError, match="asks to wait 3,600 s"),
    ):
        ask(endpoint(server), "hello")
    assert len(server.bodies) == 1


def test_a_refusal_is_told_at_once_and_the_key_is_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", KEY)
    with serving(lambda _body, _number: Reply({"error": f"Incorrect key {KEY}"}, status=401)) as server:
        arm = endpoint(server, key_env="OTHER_KEY")
        with pytest.raises(EndpointError, match=r"status 401: .*Incorrect key \*\*\*") as caught:
            ask(arm, *map(str, range(40)))
        assert len(server.bodies) < 12  # the others are not asked any more
    assert KEY not in f"{caught.value}{caught.getrepr(chain=True)}{vars(arm)}"


def test_a_missing_key_is_named_and_secrets_in_an_address_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTHER_KEY", raising=False)
    config = EndpointConfig(name="other", url="http://u:pw@127.0.0.1:9/v1?token=t", model="m", key_env="OTHER_KEY")
    with pytest.raises(EndpointError, match="other needs its key in the environment variable OTHER_KEY"):
        require_key(config)
    arm = Endpoint(config.model_copy(update={"key_env": None}), max_new_tokens=1, first_wait_s=0.0)
    with pytest.raises(EndpointError, match=r"at http://127.0.0.1:9/v1/chat/completions: the connection failed") as caught:
        ask(arm, "hello")
    assert "pw" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_a_slow_server_is_given_up_after_the_timeout() -> None:
    with (
        serving(lambda _body, _number: time.sleep(0.4)) as server,
        pytest.raises(EndpointError, match=r"no answer within 0\.05 s, 5 times"),
    ):
        ask(endpoint(server, timeout_s=0.05), "hello")


def test_newer_models_are_asked_with_the_parameters_they_know() -> None:
    def newer(body: dict[str, Any], number: int) -> Reply:
        if "max_tokens" in body:
            return Reply({"error": "Unsupported parameter: use 'max_completion_tokens'"}, status=400)
        if "temperature" in body:
            return Reply({"error": "'temperature' does not support 0"}, status=400)
        return echo(body, number)

    with serving(newer) as server:
        assert ask(endpoint(server), "hello") == ["You said hello"]
    assert server.bodies[-1]["max_completion_tokens"] == 9
    with (
        serving(lambda _body, _number: Reply({"error": "no such model"}, status=400)) as server,
        pytest.raises(EndpointError, match=r"status 400: .*no such model"),
    ):
        ask(endpoint(server), "hello")
    assert len(server.bodies) == 1


def test_tools_are_offered_and_a_call_is_written_as_rows_write_it() -> None:
    call = {"function": {"name": "hours", "arguments": '{"day": "Sunday"}'}}
    offered = [{"type": "function", "function": {"name": "hours"}}]
    with serving(lambda _body, _number: Reply(answer(None, tool_calls=[call]))) as server:
        (said,) = ask(endpoint(server), "Open?", tools=(json.dumps(offered),))
    assert said == '<tool_call>\n{"name": "hours", "arguments": {"day": "Sunday"}}\n</tool_call>'
    assert server.bodies[0]["tools"] == offered


@pytest.mark.parametrize("written", ['{"day": 1, "day": 2}', '{"day": NaN}', '{"day": ', "Sunday"])
def test_a_call_with_arguments_that_are_no_json_is_the_models_answer_and_no_failure(written: str) -> None:
    call = {"function": {"name": "hours", "arguments": written}}
    with serving(lambda _body, _number: Reply(answer(None, tool_calls=[call]))) as server:
        (said,) = ask(endpoint(server), "Open?")
    assert said == f'<tool_call>\n{{"name": "hours", "arguments": {written}}}\n</tool_call>'
    assert len(server.bodies) == 1


def test_a_server_that_tells_no_usage_leaves_the_tokens_unknown() -> None:
    with serving(lambda _body, _number: Reply({"choices": [{"message": {"content": "hi"}}]})) as server:
        arm = endpoint(server)
        ask(arm, "hello")
    (found,) = arm.last_usage
    assert found._replace(seconds=None) == Usage(None, None, None)


def fails_after(number: int) -> Script:
    return lambda body, at: echo(body, at) if at <= number else Reply("boom", status=500)


def asked_of(server: Server) -> list[str]:
    return [body["messages"][-1]["content"] for body in server.bodies]


def test_after_a_failure_only_what_is_missing_is_asked_and_paid_for(tmp_path: Path) -> None:
    questions = [f"q{number}" for number in range(40)]
    with serving(fails_after(25)) as server:
        with pytest.raises(EndpointError, match="status 500") as caught:
            ask(endpoint(server, log=AnswerLog(tmp_path / "kept" / "answers.jsonl")), *questions)
        assert "every answer that it gave, is kept" in str(caught.value)
        answered = set(asked_of(server)[:25])
        server.bodies.clear()
        server.script = echo
        again = endpoint(server, log=AnswerLog(tmp_path / "kept" / "answers.jsonl"))
        assert ask(again, *questions) == [f"You said {question}" for question in questions]
        assert sorted(asked_of(server)) == sorted(set(questions) - answered)  # 15, each once
        assert len(again.reused) == 25
        assert [(one.prompt_tokens, one.answer_tokens) for one in again.last_usage] == [(7, 2)] * 40  # told for the kept ones too
        server.bodies.clear()
        third = endpoint(server, log=AnswerLog(tmp_path / "kept" / "answers.jsonl"), name="renamed", key_env="NOT_SET")
        assert ask(third, *questions) == [f"You said {question}" for question in questions]  # nothing to ask needs no key
        assert ask(third, *questions) == [f"You said {question}" for question in questions]
        assert server.bodies == []
        assert len(third.reused) == 40


def test_an_answer_is_reused_only_for_the_same_question_to_the_same_model(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "answers.jsonl")
    with serving(echo) as server:
        first = endpoint(server, log=log)
        ask(first, "q", "q")
        ask(first, "q")
        assert len(server.bodies) == 1  # asked twice in one evaluation it is one question
        assert first.reused == {}  # and was not kept from before
        others: list[dict[str, Any]] = [
            {"model": "m-2"},
            {"max_new_tokens": 8},
            {"url": server.url + "/"},  # the same address
            {"url": server.url.replace("127.0.0.1", "ann:secret@127.0.0.1")},  # and asked by somebody else
            {"url": server.url + "?deployment=b"},
            {"keep_h": 0},
        ]
        for number, other in zip((2, 3, 3, 3, 4, 5), others, strict=True):
            ask(endpoint(server, log=log, **other), "q")
            assert len(server.bodies) == number, other
        (said,) = endpoint(server, log=log).generate([[Message(role=Role.SYSTEM, content="q")]])
        (more,) = endpoint(server, log=log).generate([[Message(role=Role.USER, content="q")]], tools=('[{"type": "function"}]',))
        assert said == more == "You said q"
        assert len(server.bodies) == 7
    assert "secret" not in log.path.read_text()
    assert server.url not in log.path.read_text()


def test_an_old_answer_is_asked_for_again(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "answers.jsonl")
    with serving(echo) as server:
        ask(endpoint(server, log=log), "q")
        (line,) = log.path.read_text().splitlines()
        plain = json.loads(line)
        log.path.write_text(json.dumps({**plain, "at": plain["at"] - 3 * 3600, "answer": "old"}) + "\n")
        assert ask(endpoint(server, log=AnswerLog(log.path), keep_h=4), "q") == ["old"]
        assert ask(endpoint(server, log=AnswerLog(log.path), keep_h=2), "q") == ["You said q"]
        assert ask(endpoint(server, log=AnswerLog(log.path), keep_h=4), "q") == ["You said q"]  # the newest counts


@pytest.mark.parametrize("torn", [b'{"key": "ab', b"\x00\x00\n", b"[1]\n", b'{"key": 1, "at": "x"}\n'])
def test_a_torn_or_strange_line_is_an_answer_asked_for_again(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    with serving(echo) as server:
        ask(endpoint(server, log=AnswerLog(path)), "q0")
        with path.open("ab") as file:
            file.write(torn)
        ask(endpoint(server, log=AnswerLog(path)), "q0", "q1")
        assert asked_of(server) == ["q0", "q1"]
        ask(endpoint(server, log=AnswerLog(path)), "q0", "q1")
        assert len(server.bodies) == 2


KILLED = """
import sys
from pathlib import Path
from tunesmith.evaluate.answer_log import AnswerLog
from tunesmith.evaluate.config import EndpointConfig
from tunesmith.evaluate.endpoint import Endpoint
from tunesmith.records import Message, Role

url, path = sys.argv[1:]
arm = Endpoint(EndpointConfig(name="other", url=url, model="m-1"), max_new_tokens=9, log=AnswerLog(Path(path)))
arm.generate([[Message(role=Role.USER, content=f"q{number}")] for number in range(30)])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_its_answers_to_the_next(tmp_path: Path, how: signal.Signals) -> None:
    path, reached, released = tmp_path / "answers.jsonl", threading.Event(), threading.Event()

    def stuck(body: dict[str, Any], number: int) -> Reply:
        if number > 12:
            reached.set()
            released.wait(30)
        return echo(body, number)

    with serving(stuck) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, server.url, str(path)], env=os.environ, stderr=subprocess.DEVNULL
        )
        try:
            assert reached.wait(60)
            deadline = time.monotonic() + 30
            while path.read_bytes().count(b"\n") < 12 and time.monotonic() < deadline:  # the twelve lie on the disk already
                time.sleep(0.01)
            process.send_signal(how)
            if how == signal.SIGINT:
                released.set()
            assert process.wait(30) != 0
        finally:
            released.set()
            process.kill()
            process.wait()
        kept = path.read_bytes().count(b"\n")
        assert kept == 12 if how == signal.SIGKILL else 12 <= kept <= 16  # what is under way when Ctrl-C comes is kept too
        server.script = echo
        server.bodies.clear()
        arm = endpoint(server, log=AnswerLog(path))
        assert ask(arm, *(f"q{number}" for number in range(30))) == [f"You said q{number}" for number in range(30)]
        asked = [body["messages"][0]["content"] for body in list(server.bodies)]
        assert len(set(asked)) == 30 - kept
        assert len(asked) <= 30 - kept + 4  # on a busy machine the server may read what the killed one had under way only now
