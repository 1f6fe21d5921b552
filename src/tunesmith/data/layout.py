"""Where the prompts and answers of a conversation lie in what a template prints.

For the assistant turn i,

    prompt = the template's text of messages[:i] with the generation prompt
    answer = what the text of messages[:i + 1] adds to it, up to and including the end-of-turn token

Knows text only. Contents come in shielded, so a control token in a text here is one that the template printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tunesmith.data.template import ChatTemplate, TemplateRefused
from tunesmith.errors import DataError
from tunesmith.records import Message, Role

__all__ = ["Layout", "NoPlace", "Typesetter"]

_LOOKED_FOR = 24  # last characters of an answer, by which it is found in what a template printed
_SENTINEL = "\ufdd4"


class NoPlace(TemplateRefused):
    """The template does not print an answer."""


class Layout(NamedTuple):
    """The consecutive pieces of one text, each with its weight."""

    pieces: list[str]
    weights: list[float]


class _Turn(NamedTuple):
    """One assistant turn as text: what stands before it, and what is learned."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Typesetter:
    """Lays out conversations that offer the same tools."""

    template: ChatTemplate
    """With the tools."""
    end: str | None
    """The control token with which it ends an answer, if it does."""
    eos: str | None
    """What ends an answer where the template prints no such token."""
    continues: bool
    """Whether an answer continues its prompt in the plainest conversation."""

    def conversation(self, messages: Sequence[Message]) -> list[Layout]:
        """Lay out what is learned: one text, or one for each supervised answer if the template rewrites earlier turns.

        Raises:
            NoPlace: an answer is not printed.
            TemplateRefused: the template refuses the conversation.
            DataError: its answers never continue their prompts.
        """
        answered = [i for i, message in enumerate(messages) if message.role is Role.ASSISTANT]
        while answered and messages[answered[-1]].weight == 0:
            answered.pop()  # nothing is learned from what follows the last supervised answer
        if not answered:
            return []
        turns = [self._turn(messages, i) for i in answered]
        weights = [messages[i].weight for i in answered]
        pieces = _cut(turns[-1].prompt, turns[:-1], end=self.eos)
        if pieces is not None:
            alternating = [weight for learned in weights for weight in (0.0, learned)]
            return [Layout([*pieces, turns[-1].answer], alternating)]
        layouts = []
        for i, turn, weight in zip(answered, turns, weights, strict=True):
            if weight > 0:
                before = self.prompt(messages[:i])
                layouts.append(Layout([*before, turn.answer], [0.0] * len(before) + [weight]))
        return layouts

    def prompt(self, messages: Sequence[Message]) -> list[str]:
        """Lay out what stands before an answer, cut at the borders that training gave the earlier answers.

        Raises:
            TemplateRefused: the template refuses the conversation.
        """
        text = self.template.render(messages, add_generation_prompt=True)
        try:
            turns = [self._turn(messages, i) for i, message in enumerate(messages) if message.role is Role.ASSISTANT]
        except (TemplateRefused, DataError):
            return [text]
        pieces = _cut(text, turns, end=self.eos)
        return [text] if pieces is None else pieces

    def prints_tools(self, messages: Sequence[Message]) -> bool:
        """Whether one tool more, of a name that stands nowhere else, stands in the prompt of the last answer."""
        answered = [i for i, message in enumerate(messages) if message.role is Role.ASSISTANT]
        function = {"name": _SENTINEL, "description": _SENTINEL, "parameters": {"type": "object", "properties": {}}}
        template = self.template.offering([*(self.template.tools or ()), {"type": "function", "function": function}])
        try:
            return _SENTINEL in template.render(messages[: answered[-1]] if answered else messages, add_generation_prompt=True)
        except TemplateRefused:
            return True  # it looks into them, and says itself what it does not like

    def _turn(self, messages: Sequence[Message], i: int) -> _Turn:
        prompt = self.template.render(messages[:i], add_generation_prompt=True)
        full = self.template.render(messages[: i + 1], add_generation_prompt=False)
        if not full.startswith(prompt):
            if self.continues:
                raise TemplateRefused("it rewrites the question once it is answered, so what to learn is not defined")
            raise DataError(
                f"{self.template.name}: with this chat template an answer does not continue its prompt, so what to learn is not "
                f"defined. The prompt ends with {prompt[-60:]!r}; the conversation goes on differently. Give the folder another "
                "chat_template.jinja."
            )
        answer = full[len(prompt) :]
        if not self._prints(messages[: i + 1], answer=answer, full=full):
            raise NoPlace
        end = answer.rfind(self.end) if self.end else -1
        if self.end and end >= 0:
            return _Turn(prompt, answer[: end + len(self.end)])
        # The template ends the answer with ordinary text or with nothing: EOS is what teaches the model to stop.
        return _Turn(prompt, answer + (self.eos or ""))

    def _prints(self, messages: Sequence[Message], *, answer: str, full: str) -> bool:
        """Whether the last message's content is printed; where it is not found as it stands, by what another one changes."""
        content = messages[-1].content.strip()
        if content[-_LOOKED_FOR:] in answer:
            return True
        other = replace(messages[-1], content=_SENTINEL + messages[-1].content + _SENTINEL)
        return self.template.render([*messages[:-1], other], add_generation_prompt=False) != full


def _cut(text: str, turns: Sequence[_Turn], *, end: str | None) -> list[str] | None:
    """Cut a text before and after each of these answers, or return None if it does not hold them as they were learned.

    Where `end` was appended to an answer that the template leaves open, the text may go on with or without it.
    """
    pieces: list[str] = []
    at = 0
    for turn in turns:
        whole = turn.prompt + turn.answer
        if not text.startswith(whole):
            if not (end and whole.endswith(end) and text.startswith(whole[: -len(end)])):
                return None
            whole = whole[: -len(end)]
        if len(turn.prompt) < at:
            return None
        pieces += [text[at : len(turn.prompt)], turn.answer]
        at = len(whole)
    return [*pieces, text[at:]]
