"""A headless Chromium, spoken to over a pipe in its own protocol: opens one page and tells what happened."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import require_tool


class Seen(NamedTuple):
    """What a browser made of a page."""

    messages: list[str]
    """Of the console, refusals by its policy included."""
    requests: list[str]
    """Every address that was asked for."""
    width: int
    """Of the whole page, in CSS pixels."""
    ground: str
    """The colour of its ground."""
    text: str
    """What can be read on it."""
    picture: bytes
    """PNG."""


class Browser:
    """One browser with one page."""

    def __init__(self, send: int, receive: int) -> None:
        self._send = send
        self._receive = receive
        self._waiting = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank", session=None)["targetId"]
        self.session = str(self.ask("Target.attachToTarget", targetId=target, flatten=True, session=None)["sessionId"])

    def look(self, page: Path, *, width: int, scheme: str, top: int = 0, height: int = 1200) -> Seen:
        """Open a page at a width and in `light` or `dark`, its folded parts too; the picture is of a part of it."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        self._wait_for("Page.loadEventFired")
        self.ask("Runtime.evaluate", expression="document.querySelectorAll('details').forEach(d => d.open = true)")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        picture = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        return Seen(
            messages=[self._message(event) for event in self._events if event["method"] in _TELLING],
            requests=[e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"],
            width=int(self._value("document.documentElement.scrollWidth")),
            ground=str(self._value("getComputedStyle(document.body).backgroundColor")),
            text=str(self._value("document.body.innerText")),
            picture=base64.b64decode(picture),
        )

    def ask(self, method: str, *, session: str | None = "", **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session or self.session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _value(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def _wait_for(self, method: str) -> None:
        while not any(event.get("method") == method for event in self._events):
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            part = os.read(self._receive, 1 << 20)
            assert part, "the browser is gone"
            self._waiting += part
        one, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

    @staticmethod
    def _message(event: dict[str, Any]) -> str:
        return json.dumps(event["params"])[:500]


_TELLING = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser, and end it; the test is skipped where there is none."""
    chromium = require_tool("chromium")
    to_read, send = os.pipe()
    receive, to_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--disable-background-networking"),
            *("--no-first-run", "--disable-component-update", f"--user-data-dir={profile}", "--hide-scrollbars"),
        ]

        def at_three_and_four() -> None:  # the numbers at which the browser reads and writes
            read, write = os.dup(to_read), os.dup(to_write)
            os.dup2(read, 3)
            os.dup2(write, 4)

        process = subprocess.Popen(
            [chromium, *arguments],
            preexec_fn=at_three_and_four,  # noqa: PLW1509 - it only copies numbers of files
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        try:
            yield Browser(send, receive)
        finally:
            process.kill()
            process.wait()
            os.close(send)
            os.close(receive)
