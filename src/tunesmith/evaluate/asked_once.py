"""An arm that is asked everything once: what it said is kept, for whoever wants to know more of the same answers."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.evaluate.arms import Answered, Arm, Likelihood, Usage
from tunesmith.records import Message, Record

__all__ = ["AskedOnce"]

_Prompt = tuple[tuple[Message, ...], str]


class AskedOnce:
    """Stands before an arm. An arm with a method `answer`, which gives `Answered`, also tells whether each answer ended."""

    def __init__(self, arm: Arm) -> None:
        """Keep the arm.

        Args:
            arm: answers alike whenever it is asked the same.
        """
        self._arm = arm
        self.last_usage: list[Usage] = []
        """What the last answers took when they were asked for, as far as the arm tells."""
        self._answers: dict[_Prompt, Answered] = {}
        self._usages: dict[_Prompt, Usage] = {}
        self._likelihoods: dict[str, Likelihood] = {}

    def generate(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[str]:
        """One answer for each conversation."""
        return [answered.text for answered in self.answer(conversations, tools=tools)]

    def answer(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[Answered]:
        """The same, with how each answer ended."""
        offered = tools or [""] * len(conversations)
        asked = [(tuple(messages), of_one) for messages, of_one in zip(conversations, offered, strict=True)]
        new = list(dict.fromkeys(prompt for prompt in asked if prompt not in self._answers))
        if new:
            self._answers.update(zip(new, self._ask(new), strict=True))
            told = getattr(self._arm, "last_usage", [])
            self._usages.update(zip(new, told, strict=True) if len(told) == len(new) else ())
        self.last_usage = [self._usages[prompt] for prompt in asked if prompt in self._usages]
        return [self._answers[prompt] for prompt in asked]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        """One likelihood for each record."""
        new = list({record.id: record for record in records if record.id not in self._likelihoods}.values())
        if new:
            found = self._arm.likelihood(new)
            self._likelihoods.update((record.id, likelihood) for record, likelihood in zip(new, found, strict=True))
        return [self._likelihoods[record.id] for record in records]

    def _ask(self, prompts: Sequence[_Prompt]) -> list[Answered]:
        conversations, tools = [messages for messages, _ in prompts], [of_one for _, of_one in prompts]
        given = {"tools": tools} if any(tools) else {}
        if (answer := getattr(self._arm, "answer", None)) is not None:
            answered: list[Answered] = answer(conversations, **given)
            return answered
        return [Answered(text, None) for text in self._arm.generate(conversations, **given)]
