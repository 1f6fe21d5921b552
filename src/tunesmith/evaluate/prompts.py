"""Prompts: Jinja templates that lay out instruction, examples and question as messages, and an arm that asks so.

A template is text with `{% message "system" %}...{% endmessage %}` around each message, and its digest stands in the report. It runs in
jinja's immutable sandbox. It may read `instruction` (a text), `facts` (a text), `system` (the row's own system prompt), `demonstrations`
(each with `question` and `answer`) and `conversation` (the row's turns up to the answer, each with `role` and `content`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox

from tunesmith.errors import NotFound, UserError
from tunesmith.evaluate.arms import Answering, Arm, Likelihood, Usage
from tunesmith.evaluate.questions import question_of
from tunesmith.evaluate.term_index import FactSheet
from tunesmith.records import Message, Record, Role
from tunesmith.store.digest import digest_of

__all__ = ["CHAT", "Demonstration", "PromptTemplate", "Prompted", "load_template"]

_VARIABLES = ("conversation", "demonstrations", "facts", "instruction", "system")
_TURNS = "_turns"
_LINES = (32, 16, 8, 4, 2, 1)
"""Of a fact sheet that is too long, how many lines are tried."""
_Spelled = tuple[tuple[str, str], ...]
_CHAT = """\
{% set parts = [instruction, facts, system] | select | join("\\n\\n") %}
{% if parts %}{% message "system" %}{{ parts }}{% endmessage %}{% endif %}
{% for demonstration in demonstrations %}
{% message "user" %}{{ demonstration.question }}{% endmessage %}
{% message "assistant" %}{{ demonstration.answer }}{% endmessage %}
{% endfor %}
{% for turn in conversation %}{% message turn.role %}{{ turn.content }}{% endmessage %}{% endfor %}
"""


class Demonstration(NamedTuple):
    """A question with its right answer, shown in a prompt."""

    question: str
    answer: str


class _Messages(jinja2.ext.Extension):
    """`{% message role %}...{% endmessage %}`: what stands inside becomes one message, and nothing is printed."""

    tags = {"message"}  # noqa: RUF012 - jinja declares it so

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        role = parser.parse_expression()
        body = parser.parse_statements(("name:endmessage",), drop_needle=True)
        call = self.call_method("_add", [jinja2.nodes.Name(_TURNS, "load"), role], lineno=line)
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _add(self, turns: list[Message], role: object, caller: Callable[[], str]) -> str:
        if role not in set(Role):
            raise jinja2.TemplateError(f"a message has the role {role!r}; known: {', '.join(Role)}")
        turns.append(Message(role=Role(str(role)), content=caller(), weight=0.0))
        return ""


_ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, extensions=[_Messages]
)


@dataclass(frozen=True)
class PromptTemplate:
    """One way to lay out a prompt."""

    text: str
    name: str = "chat"
    version: int = 1

    @property
    def digest(self) -> str:
        """Sha256 of the text: the identity of the prompt."""
        return digest_of(self.text)

    def check(self) -> None:
        """Compile it.

        Raises:
            UserError: it is not valid jinja, reads a variable that there is not, or does not ask the question.
        """
        try:
            parsed = _ENVIRONMENT.parse(self.text)
            _ENVIRONMENT.from_string(self.text)  # names of filters and tests are looked up here
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"{self.name}:{error.lineno}: the prompt is not valid jinja: {error.message}") from error
        read = jinja2.meta.find_undeclared_variables(parsed) - {_TURNS}
        if unknown := sorted(read - set(_VARIABLES)):
            near = [match for name in unknown for match in difflib.get_close_matches(name, _VARIABLES, n=1)]
            hint = f" Did you mean {', '.join(f'`{name}`' for name in near)}?" if near else ""
            raise UserError(
                f"{self.name}: the prompt reads {', '.join(f'`{name}`' for name in unknown)}, which there is not.{hint} "
                f"Known: {', '.join(_VARIABLES)}"
            )
        if "conversation" not in read:
            raise UserError(f"{self.name}: the prompt never reads `conversation`, so it would not ask the question")

    def render(
        self,
        conversation: Sequence[Message],
        *,
        instruction: str = "",
        facts: str = "",
        demonstrations: Sequence[Demonstration] = (),
    ) -> list[Message]:
        """Lay out a prompt; every message has weight 0, for none of it is learned or scored.

        Args:
            conversation: up to the answer that is wanted; a system prompt may stand first.
            instruction: for the model.
            facts: that it may rely on.
            demonstrations: in the order in which they are to be shown.

        Raises:
            UserError: the template fails on it, prints text outside of messages, or gives no message.
        """
        system = "\n\n".join(turn.content for turn in conversation if turn.role is Role.SYSTEM)
        turns: list[Message] = []
        names: dict[str, Any] = {
            "instruction": instruction,
            "facts": facts,
            "system": system,
            "demonstrations": [shown._asdict() for shown in demonstrations],
            "conversation": [
                {"role": turn.role.value, "content": turn.content} for turn in conversation if turn.role is not Role.SYSTEM
            ],
            _TURNS: turns,
        }
        try:
            outside = self._compiled.render(names).strip()
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise UserError(f"{self.name}: the prompt fails: {error}") from error
        if outside:
            raise UserError(f"{self.name}: the prompt prints {outside[:60]!r} outside of a message")
        if not turns:
            raise UserError(f"{self.name}: the prompt gives no message")
        return turns

    @cached_property
    def _compiled(self) -> jinja2.Template:
        self.check()
        return _ENVIRONMENT.from_string(self.text)


CHAT = PromptTemplate(_CHAT)
"""Instruction, facts and the row's own system prompt in one system message; then the examples; then the conversation."""


def load_template(path: Path) -> PromptTemplate:
    """Read a template of the user's own, and lay out one question with it: what is wrong shows before anything trains.

    Raises:
        NotFound: there is no such file.
        UserError: it is no text, or no sound template.
    """
    try:
        template = PromptTemplate(path.read_text(encoding="utf-8"), name=path.name)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"{path} does not exist; `evaluate.prompt` names it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    template.render([Message(role=Role.USER, content="?")], instruction="?", facts="?", demonstrations=[Demonstration("?", "?")])
    return template


def _nothing(_record: Record | None, _conversation: Sequence[Message]) -> list[Demonstration]:
    return []


class Prompted:
    """An arm asked in another way: with an instruction, with examples, or both. It is an arm itself.

    The likelihood is that of the row's own answer after such a prompt, so it counts the very tokens that the arm alone would count.
    Of a fact sheet that does not fit into the arm's context only the lines nearest to the question are shown, and of examples the farthest
    are left out first.
    """

    def __init__(
        self,
        arm: Answering,
        *,
        template: PromptTemplate = CHAT,
        instruction: str = "",
        facts: FactSheet | None = None,
        demonstrate: Callable[[Record | None, Sequence[Message]], list[Demonstration]] = _nothing,
        asked: Sequence[Record] = (),
        room: int | None = None,
    ) -> None:
        """Keep the parts.

        Args:
            arm: what is asked; where it tells `count_prompt`, prompts are kept within `room`.
            template: how prompts are laid out.
            instruction: for the model.
            facts: that it may rely on, if there are any.
            demonstrate: examples for a conversation, the nearest first; it is told the row too, where that is known.
            asked: the rows whose questions will be asked, so that an example never comes from the row's own cluster.
            room: tokens that a prompt may have.
        """
        self._left_out: dict[_Spelled, int] = {}
        self._cut: set[_Spelled] = set()
        self._arm = arm
        self._template = template
        self._instruction = instruction
        self._facts = facts
        self._demonstrate = demonstrate
        self._room = room
        self._rows = {_spelled(question.prompt): row for row in asked if (question := question_of(row)) is not None}

    @property
    def num_left_out(self) -> int:
        """Examples that did not fit, over all questions asked so far."""
        return sum(self._left_out.values())

    @property
    def num_cut_sheets(self) -> int:
        """Questions so far whose prompt did not hold the whole fact sheet."""
        return len(self._cut)

    @property
    def last_usage(self) -> list[Usage]:
        """What the last call of `generate` took, if the arm tells."""
        return list(getattr(self._arm, "last_usage", []))

    def prompt(self, conversation: Sequence[Message], *, row: Record | None = None, tools: str = "") -> list[Message]:
        """The messages that the arm is asked with."""
        spelled = _spelled(conversation)
        wanted = shown = self._demonstrate(row or self._rows.get(spelled), conversation)
        sizes = iter(_LINES if self._facts is not None else ())
        number: int | None = None
        while True:
            # The nearest example stands last, next to the question.
            messages = self._template.render(
                conversation, instruction=self._instruction, facts=self._shown(conversation, number), demonstrations=shown[::-1]
            )
            if self._fits(messages, tools=tools):
                break
            if (fewer := next(sizes, None)) is not None:
                number = fewer
            elif shown:
                shown = shown[:-1]
            else:
                break
        if number is not None:
            self._cut.add(spelled)
        if len(shown) < len(wanted):
            self._left_out[spelled] = len(wanted) - len(shown)
        return _with_weights(messages, conversation)

    def generate(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[str]:
        """Ask the arm."""
        offered = tools or [""] * len(conversations)
        prompts = [self.prompt(turns, tools=each) for turns, each in zip(conversations, offered, strict=True)]
        return self._arm.generate(prompts, tools=tools) if any(tools) else self._arm.generate(prompts)

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        """Likelihoods of the rows' own answers; a text without a question is measured as it is."""
        if not isinstance(self._arm, Arm):
            raise UserError("this arm gives no likelihoods")
        return self._arm.likelihood([self._changed(record) for record in records])

    def _changed(self, record: Record) -> Record:
        question = question_of(record)
        if question is None:
            return record
        prompt = self.prompt(question.prompt, row=record, tools=record.tools)
        return replace(record, messages=(*prompt, *record.messages[len(question.prompt) :]))

    def _shown(self, conversation: Sequence[Message], number: int | None) -> str:
        said = [turn.content for turn in conversation if turn.role is Role.USER]
        return self._facts.shown(said[-1] if said else "", number=number) if self._facts is not None else ""

    def _fits(self, messages: Sequence[Message], *, tools: str) -> bool:
        count = getattr(self._arm, "count_prompt", None)
        if self._room is None or count is None:
            return True
        return int(count(messages, tools=tools)) <= self._room


def _spelled(conversation: Sequence[Message]) -> _Spelled:
    return tuple((turn.role.value, turn.content) for turn in conversation)


def _with_weights(messages: Sequence[Message], conversation: Sequence[Message]) -> list[Message]:
    """Give the row's own earlier answers, which stand at the end of the prompt, the weights that they have in the row."""
    own = [turn for turn in conversation if turn.role is not Role.SYSTEM]
    tail = messages[len(messages) - len(own) :]
    if len(tail) != len(own) or any(new.role is not old.role for new, old in zip(tail, own, strict=True)):
        return list(messages)
    return [*messages[: len(messages) - len(own)], *(replace(new, weight=old.weight) for new, old in zip(tail, own, strict=True))]
