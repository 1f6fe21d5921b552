"""Talking to a model in the terminal, one of ours or one behind a URL: the same screen for both.

What a model says is shown as text and never obeyed: no character of it reaches the terminal that could move the cursor, change a colour
or turn the direction of a line.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tunesmith.errors import UserError
from tunesmith.evaluate import Part
from tunesmith.records import Message, Role
from tunesmith.terminal.layout import field as labelled
from tunesmith.terminal.layout import printable
from tunesmith.terminal.partners import Partner

__all__ = ["Conversation", "answer_once", "converse", "require_unicode", "say_once"]

_NOT_UNICODE = (
    "this is not UTF-8, the bytes in which text is written today; set the terminal, or the program that sends it, to UTF-8"
)

_HELP = """\
  /system TEXT    what the model is told first; alone, shows it
  /reset          start over; the system text stays
  /regenerate     ask for the last answer again
  /good, /bad     judge the last answer; the server keeps it
  /correct TEXT   what the answer should have been; the conversation goes on with it
  /save FILE      add the conversation to a file as a row that can be trained on
  /model [NAME]   the models of the server; with a name, go on with that one
  /tokens         what the last answer and all answers took
  /help           this
  Ctrl-C stops an answer, Ctrl-D ends the conversation; // says something that begins with a slash"""


def answer_once(partners: Sequence[Partner], message: str, *, as_json: bool) -> object:
    """One question, and each partner's whole answer.

    Raises:
        EndpointError: a server does not answer, or not to the end.
    """
    told = {partner.ref: list(partner.stream([Message(role=Role.USER, content=message)])) for partner in partners}
    answers = {ref: "".join(part.text for part in parts).strip() for ref, parts in told.items()}
    if as_json:
        last = partners[-1].ref
        end = told[last][-1]
        return {
            "model": last,
            "question": message,
            "answers": answers,
            "id": end.id or None,
            "finish_reason": end.finish_reason,
            "num_prompt_tokens": end.num_prompt_tokens,
            "num_completion_tokens": end.num_completion_tokens,
        }
    return Text("\n").join(labelled(printable(ref), printable(answer)) for ref, answer in answers.items())


def say_once(partner: Partner, message: str) -> None:
    """One question, and the answer to stdout as it comes.

    Raises:
        EndpointError: as of `answer_once`; what came until then stands there.
    """
    console = Console(highlight=False)
    has_begun = False
    try:
        for part in partner.stream([Message(role=Role.USER, content=message)]):
            text = printable(part.text if has_begun else part.text.lstrip())
            has_begun = has_begun or bool(text)
            console.out(text, end="", highlight=False)
            console.file.flush()
    finally:
        if has_begun:
            console.print()


def require_unicode(text: str) -> None:
    """Refuse what a terminal or a pipe sent in other bytes than UTF-8: no model and no server takes it.

    Raises:
        UserError: there are such bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(_NOT_UNICODE) from None


def converse(partners: Sequence[Partner]) -> None:
    """A conversation, until Ctrl-D."""
    if sys.stdin.isatty():
        import readline  # noqa: F401 - input() then has a history and can be edited
    console = Console(highlight=False)
    console.print(f"{printable(partners[-1].ref)} · /help says what there is, Ctrl-D ends", style="dim", markup=False)
    conversation = Conversation(partners, console)
    while True:
        try:
            said = input("> ").strip()
            require_unicode(said)
        except (UserError, UnicodeDecodeError) as error:
            console.print(str(error) if isinstance(error, UserError) else _NOT_UNICODE, markup=False)
            continue
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print()
            continue
        conversation.hear(said)


@dataclass
class _Thread:
    """One partner's side of the conversation."""

    partner: Partner
    turns: list[Message] = field(default_factory=list)
    last: Part | None = None
    """The end of its last answer, if that came to its end."""
    judged: dict[str, str] = field(default_factory=dict)
    """Ids of what was said of that answer, by kind."""


class Conversation:
    """What was said, and what a line means."""

    def __init__(self, partners: Sequence[Partner], console: Console) -> None:
        self._threads = [_Thread(partner) for partner in partners]
        self._console = console
        self._system = ""
        self._num_tokens = [0, 0]
        self._commands: Mapping[str, Callable[[str], None]] = {
            "/system": self._tell_system,
            "/reset": self._reset,
            "/regenerate": self._regenerate,
            "/good": lambda _: self._judge({"kind": "thumbs", "value": True}),
            "/bad": lambda _: self._judge({"kind": "thumbs", "value": False}),
            "/correct": self._correct,
            "/save": self._save,
            "/model": self._change_model,
            "/tokens": self._show_tokens,
            "/help": lambda _: self._print(_HELP),
        }

    def hear(self, line: str) -> None:
        """Do what a line says: a command, or a question to each partner. An empty one does nothing."""
        name, _, rest = line.partition(" ")
        try:
            if line.startswith("//"):
                self._ask(line[1:])
            elif not line.startswith("/"):
                if line:
                    self._ask(line)
            elif name in self._commands:
                self._commands[name](rest.strip())
            else:
                raise UserError(
                    f"{name} is no command; /help lists them, and a question that begins with a slash is asked with two"
                )
        except (UserError, OSError) as error:
            self._print(str(error), style="red")

    def _ask(self, said: str) -> None:
        for thread in self._threads:
            thread.turns.append(Message(role=Role.USER, content=said))
            self._answer(thread)

    def _answer(self, thread: _Thread) -> None:
        """Show an answer as it comes. One that the user stops stays as far as it came; after a failure the question is taken back."""
        system = [Message(role=Role.SYSTEM, content=self._system)] if self._system else []
        if len(self._threads) > 1:
            self._print(f"{thread.partner.ref}: ", style="dim", end="")
        answer, thread.last, thread.judged = "", None, {}
        try:
            for part in thread.partner.stream([*system, *thread.turns]):
                answer += part.text
                self._console.out(printable(part.text), end="", highlight=False)
                self._console.file.flush()
                if part.finish_reason is not None:
                    thread.last = part
        except KeyboardInterrupt:
            self._print("\n(stopped)", style="dim")
        except UserError:
            self._print("\n" if answer else "", end="")
            thread.turns.pop()
            raise
        else:
            cut = thread.last is not None and thread.last.finish_reason == "length"
            self._print("\n(cut: no room for more tokens)" if cut else "", style="dim")
        if answer.strip():
            thread.turns.append(Message(role=Role.ASSISTANT, content=answer.strip()))
        else:
            thread.turns.pop()
        if thread.last is not None:
            self._num_tokens[0] += thread.last.num_prompt_tokens or 0
            self._num_tokens[1] += thread.last.num_completion_tokens or 0

    def _tell_system(self, text: str) -> None:
        self._system = text or self._system
        self._print(f"system: {self._system}" if self._system else "no system text; /system TEXT sets one", style="dim")

    def _reset(self, _: str) -> None:
        for thread in self._threads:
            thread.turns.clear()
            thread.last = None
        self._print("started over", style="dim")

    def _regenerate(self, _: str) -> None:
        """The answer that was there stays when no other can be had."""
        self._require_answer()
        for thread in self._threads:
            kept, last, judged = thread.turns, thread.last, thread.judged
            thread.turns = kept[:-1]
            try:
                self._answer(thread)
            except UserError:
                thread.turns, thread.last, thread.judged = kept, last, judged
                raise

    def _correct(self, text: str) -> None:
        if not text:
            raise UserError("/correct TEXT says what the answer should have been")
        self._require_answer()
        turns = self._threads[-1].turns
        turns[-1] = Message(role=Role.ASSISTANT, content=text)
        self._print("the conversation goes on with your answer", style="dim")
        self._judge({"kind": "correction", "value": text})

    def _judge(self, feedback: Mapping[str, Any]) -> None:
        """Who thinks again says so: feedback of the same kind stands in the place of the earlier one."""
        thread = self._threads[-1]
        if thread.last is None:
            raise UserError("there is no whole answer yet that could be judged")
        kind, feedback_id = str(feedback["kind"]), f"fb-{uuid.uuid4().hex}"
        earlier = {"overrides": thread.judged[kind]} if kind in thread.judged else {}
        thread.partner.judge({"id": feedback_id, "completion": thread.last.id, **feedback, **earlier})
        thread.judged[kind] = feedback_id
        self._print("kept", style="dim")

    def _save(self, name: str) -> None:
        """A line of JSON for each conversation, as training reads it."""
        import orjson

        if not name:
            raise UserError("/save FILE needs the name of a file")
        self._require_answer()
        turns = self._threads[-1].turns
        system = [{"role": "system", "content": self._system}] if self._system else []
        row = {"messages": [*system, *({"role": turn.role.value, "content": turn.content} for turn in turns)]}
        with Path(name).expanduser().open("ab") as file:
            file.write(orjson.dumps(row) + b"\n")
        self._print(f"added to {name}: {len(turns)} turns", style="dim")

    def _change_model(self, name: str) -> None:
        partner = self._threads[-1].partner
        known = partner.models()
        if name and name not in known:
            raise UserError(f"there is no model {name!r} here. Known: {', '.join(known)}")
        partner.ref = name or partner.ref
        marked = [f"  {'*' if one == partner.ref else ' '} {one}" for one in ([name] if name else known)]
        self._print("\n".join(marked))

    def _show_tokens(self, _: str) -> None:
        last = self._threads[-1].last
        if last is None or last.num_completion_tokens is None:
            raise UserError("nothing was counted yet")
        prompt, completion = self._num_tokens
        self._print(f"last answer: {last.num_prompt_tokens or 0:,} tokens read, {last.num_completion_tokens:,} written")
        self._print(f"all answers: {prompt:,} read, {completion:,} written")

    def _require_answer(self) -> None:
        if any(not thread.turns or thread.turns[-1].role is not Role.ASSISTANT for thread in self._threads):
            raise UserError("there is no answer yet")

    def _print(self, text: str, *, style: str | None = None, end: str = "\n") -> None:
        """Whatever a server or a file said in it cannot do harm."""
        self._console.print(printable(text), style=style, end=end, markup=False, soft_wrap=True)
