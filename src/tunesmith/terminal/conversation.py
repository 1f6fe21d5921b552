"""Talking to a model in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from tunesmith.pipeline import ChatModel
from tunesmith.records import Message, Role
from tunesmith.terminal.layout import field

__all__ = ["answer_once", "converse"]


def answer_once(opened: ChatModel, message: str, *, temperature: float, with_base: bool, as_json: bool) -> object:
    """One question, one answer, and the base's beside it if wanted."""
    messages = [Message(role=Role.USER, content=message)]
    answers = {
        arm.ref: "".join(piece.text for piece in arm.stream(messages, temperature=temperature)).strip()
        for arm in _arms(opened, with_base=with_base)
    }
    if as_json:
        return {"model": opened.ref, "question": message, "answers": answers}
    if not with_base:
        return answers[opened.ref]
    return Text("\n").join(field(ref, answer) for ref, answer in answers.items())


def converse(opened: ChatModel, *, temperature: float, with_base: bool) -> None:
    """A conversation, until Ctrl-D."""
    console = Console(highlight=False)
    console.print(f"{opened.ref} · an empty line starts over, Ctrl-D ends", style="dim")
    arms = _arms(opened, with_base=with_base)
    told: dict[str, list[Message]] = {arm.ref: [] for arm in arms}
    while True:
        try:
            said = console.input("> ").strip()
        except EOFError:
            return
        if not said:
            told = {arm.ref: [] for arm in arms}
            continue
        for arm in arms:
            told[arm.ref].append(Message(role=Role.USER, content=said))
            label = f"{arm.ref}: " if with_base else ""
            answer = _say(console, arm, told[arm.ref], label=label, temperature=temperature)
            told[arm.ref].append(Message(role=Role.ASSISTANT, content=answer))


def _say(console: Console, arm: ChatModel, messages: Sequence[Message], *, label: str, temperature: float) -> str:
    """Print an answer as it comes, and return it."""
    console.print(label, end="", style="dim")
    answer = ""
    for piece in arm.stream(messages, temperature=temperature):
        answer += piece.text
        console.out(piece.text, end="")
        console.file.flush()
    console.print()
    return answer.strip()


def _arms(opened: ChatModel, *, with_base: bool) -> list[ChatModel]:
    return [opened.base(), opened] if with_base else [opened]
