"""Who answers in a conversation: a model of ours or one behind a URL, asked in the same way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console

from tunesmith.errors import UserError
from tunesmith.evaluate import Part, RemoteChat
from tunesmith.pipeline import ChatModel
from tunesmith.records import Message
from tunesmith.terminal.layout import on_one_line, printable

__all__ = ["Local", "Partner", "connect", "count_down"]


class Partner(Protocol):
    """One model that can be talked to."""

    ref: str

    def stream(self, messages: Sequence[Message]) -> Iterator[Part]:
        """The next turn, as it is said; the last part has a finish reason."""

    def models(self) -> list[str]:
        """The names that `ref` may be."""

    def judge(self, body: Mapping[str, Any]) -> None:
        """Keep feedback on an answer."""


class Local:
    """A version of this workspace."""

    def __init__(self, opened: ChatModel, *, temperature: float) -> None:
        self.ref = opened.ref
        self._opened = opened
        self._temperature = temperature

    def stream(self, messages: Sequence[Message]) -> Iterator[Part]:
        """The next turn, with its counts at the end."""
        num_tokens = 0
        for piece in self._opened.stream(messages, temperature=self._temperature):
            num_tokens += piece.num_tokens
            is_last = piece.finish_reason is not None
            yield Part(
                piece.text,
                piece.finish_reason,
                num_prompt_tokens=self._opened.count_prompt(messages) if is_last else None,
                num_completion_tokens=num_tokens if is_last else None,
            )

    def models(self) -> list[str]:
        """Only itself."""
        return [self.ref]

    def judge(self, body: Mapping[str, Any]) -> None:  # noqa: ARG002 - a server's is kept
        """Nobody keeps it.

        Raises:
            UserError: always.
        """
        raise UserError(
            "nothing was kept: feedback belongs to answers of a server; `tunesmith serve`, then `tunesmith chat --url`"
        )


def connect(url: str, *, model: str, api_key: str | None, temperature: float) -> RemoteChat:
    """A model behind a URL. While its server asks to wait, stderr counts down.

    Raises:
        EndpointError: nobody answers there.
    """
    return RemoteChat(url, ref=model, api_key=api_key, temperature=temperature, wait=count_down)


def count_down(seconds: float, reason: str) -> None:
    """Wait, and show in a terminal how long still."""
    console = Console(stderr=True, highlight=False)
    reason = on_one_line(printable(reason))
    until = time.monotonic() + seconds
    if seconds > 0 and not console.is_terminal:
        console.print(f"{reason}; again in {seconds:.0f} s", markup=False, soft_wrap=True)
    while (left := until - time.monotonic()) > 0:
        if console.is_terminal:
            console.file.write(f"\r{reason[: max(console.width - 22, 10)]}; again in {left:.0f} s \x1b[K")
            console.file.flush()
        time.sleep(min(left, 1.0))
    if seconds > 0 and console.is_terminal:
        console.file.write("\r\x1b[K")
        console.file.flush()
