"""An arm that is asked everything once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunesmith.evaluate import Likelihood, Usage
from tunesmith.evaluate.arms import Answered
from tunesmith.evaluate.asked_once import AskedOnce
from tunesmith.records import Message, Record, Role, Source


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role=Role.USER, content=text),)


@dataclass
class Counting:
    asked: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)

    def generate(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[str]:
        names = [one[-1].content for one in conversations]
        self.asked += names
        return [name.upper() + tool for name, tool in zip(names, tools or [""] * len(names), strict=True)]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        self.measured += [record.id for record in records]
        return [Likelihood(float(len(record.id)), 1, 1) for record in records]


class Telling(Counting):
    def answer(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[Answered]:
        return [Answered(text, len(text) < 3) for text in self.generate(conversations, tools=tools)]


def test_what_was_asked_before_is_not_asked_again() -> None:
    arm = Counting()
    once = AskedOnce(arm)
    assert once.generate([ask("a"), ask("b"), ask("a")]) == ["A", "B", "A"]
    assert once.generate([ask("b"), ask("c")]) == ["B", "C"]
    assert arm.asked == ["a", "b", "c"]


def test_what_each_answer_took_is_told_in_the_order_of_the_questions() -> None:
    class Weighing(Counting):
        def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
            self.last_usage = [Usage(len(one[-1].content), 1) for one in conversations]
            return super().generate(conversations)

    once = AskedOnce(Weighing())
    once.generate([ask("aa"), ask("b"), ask("aa")])
    assert [one.prompt_tokens for one in once.last_usage] == [2, 1, 2]
    once.generate([ask("ccc"), ask("b")])
    assert [one.prompt_tokens for one in once.last_usage] == [3, 1]
    silent = AskedOnce(Counting())
    silent.generate([ask("a")])
    assert silent.last_usage == []


def test_the_same_question_with_other_tools_is_another() -> None:
    arm = Counting()
    once = AskedOnce(arm)
    assert once.generate([ask("a"), ask("a")], tools=["[1]", ""]) == ["A[1]", "A"]
    assert once.generate([ask("a")]) == ["A"]
    assert arm.asked == ["a", "a"]


def test_likelihoods_are_kept_by_record() -> None:
    arm = Counting()
    once = AskedOnce(arm)
    rows = [Record(id=name, source=Source(path="x", line=1), text=name) for name in ("x", "yy", "x")]
    assert [found.nll for found in once.likelihood(rows)] == [1.0, 2.0, 1.0]
    assert [found.nll for found in once.likelihood(rows[1:])] == [2.0, 1.0]
    assert arm.measured == ["x", "yy"]


def test_an_arm_that_tells_how_answers_end_is_heard() -> None:
    assert AskedOnce(Telling()).answer([ask("ab"), ask("abc")]) == [
        Answered("AB", has_ended=True),
        Answered("ABC", has_ended=False),
    ]
    assert AskedOnce(Counting()).answer([ask("ab")]) == [Answered("AB", has_ended=None)]
