"""`tunesmith chat --url` in a process of its own, against a real server: in a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ENVIRONMENT = {**os.environ, "TUNESMITH_API_KEY": "sk-right", "COLUMNS": "80", "TERM": "xterm"}


class Terminal:
    """A person at a terminal in which `tunesmith chat` runs."""

    def __init__(self, *argv: str, cwd: Path) -> None:
        self._fd, inner = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith", "chat", *argv], stdin=inner, stdout=inner, stderr=inner, env=ENVIRONMENT, cwd=cwd
        )
        os.close(inner)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def type_bytes(self, some: bytes) -> None:
        os.write(self._fd, some)

    def press_ctrl_c(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> str:
        """What is shown up to a text that has not been waited for yet."""
        while text not in self.shown:
            some = self._read()
            assert some, f"ended without {text!r}: {self.shown!r}"
            self.shown += some
        before, _, self.shown = self.shown.partition(text)
        return before

    def leaves_with(self) -> int:
        while self._read():
            pass
        return self._process.wait()

    def _read(self) -> str:
        ready, _, _ = select.select([self._fd], [], [], 90)
        assert ready, f"nothing more is said: {self.shown!r}"
        try:
            return os.read(self._fd, 4096).decode(errors="replace")
        except OSError:  # as Linux says where nobody holds the other end
            return ""


def test_a_person_stops_an_answer_goes_on_and_leaves(running: Callable[..., Any], scripted: type[Any], tmp_path: Path) -> None:
    is_stopped = threading.Event()
    calls = 0

    def before(i: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 3 and not is_stopped.is_set():
            time.sleep(0.02)

    engine = scripted("One \x1b[2J", "two ", *["more "] * 3000, max_length=10_000, before=before)
    other = scripted("We ", "do.", ref="other@1")
    server = running(boutique=engine, other=other, api_key="sk-right")
    with Terminal("--url", server.url, cwd=tmp_path) as person:
        person.wait_for("boutique")
        person.wait_for("> ")
        person.type("Open?\n")
        shown = person.wait_for("more ")
        assert "\x1b[2J" not in shown
        assert "\ufffd[2J" in shown
        person.press_ctrl_c()
        person.wait_for("(stopped)")
        is_stopped.set()
        assert engine.was_abandoned.wait(60), "the server stopped too"
        person.wait_for("> ")
        person.type("/model other\n")
        person.wait_for("* other")
        person.wait_for("> ")
        person.type("And now?\n")
        person.wait_for("We do.")
        said = [message.content for message in other.asked[0][0]]
        assert (said[0], said[-1]) == ("Open?", "And now?")
        person.wait_for("> ")
        person.type("\x04")
        assert person.leaves_with() == 0


@pytest.mark.parametrize("as_json", [True, False])
def test_a_question_in_a_pipe_is_answered_once(
    running: Callable[..., Any], scripted: type[Any], tmp_path: Path, as_json: bool
) -> None:
    server = running(boutique=scripted("We ", "do."), api_key="sk-right")
    argv = [sys.executable, "-m", "tunesmith", "chat", "--url", server.url, *(["--json"] if as_json else [])]
    done = subprocess.run(
        argv, input="Do you open\non Sundays?\n", capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    if not as_json:
        assert done.stdout == "We do.\n"
        return
    told = json.loads(done.stdout)
    assert told["id"].startswith("chatcmpl-")
    assert told | {"id": ""} == {
        "model": "boutique",
        "question": "Do you open\non Sundays?",
        "answers": {"boutique": "We do."},
        "id": "",
        "finish_reason": "stop",
        "num_prompt_tokens": 5,
        "num_completion_tokens": 2,
    }


def test_what_is_not_utf8_is_told_and_ends_no_conversation(
    running: Callable[..., Any], scripted: type[Any], tmp_path: Path
) -> None:
    server = running(boutique=scripted("We ", "do."), api_key="sk-right")
    argv = [sys.executable, "-m", "tunesmith", "chat", "--url", server.url]
    for given, stdin in (([], b"\xff\xfe bad"), ([b"\xff"], None)):
        done = subprocess.run([*argv, *given], input=stdin, capture_output=True, check=False, env=ENVIRONMENT, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"this is not UTF-8" in done.stderr
        assert b"Traceback" not in done.stderr
    with Terminal("--url", server.url, cwd=tmp_path) as person:
        person.wait_for("> ")
        person.type_bytes(b"\xff\xfe\n")
        person.wait_for("this is not UTF-8")
        person.type("Open?\n")
        person.wait_for("We do.")
