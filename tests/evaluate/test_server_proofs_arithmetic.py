"""Each comparison of the proofs of a server, on a contract of numbers and a server that is a table of answers: no model, no socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tunesmith.data.contract import BASE, BF16, Contract, Probe, Spoken
from tunesmith.evaluate.drift import measure_drift
from tunesmith.evaluate.server import ChatAnswer, TokenSaid
from tunesmith.evaluate.server_proofs import ANSWERS, CONTEXT, ENDS, PROMPTS, TOKENIZER, WEIGHTS, prove_server
from tunesmith.records import Message, Proof

BOS, END = 1, 9
TEXTS = ("It", " is", " seven", " euros")


def spoken(*, base: float = 3.0) -> Spoken:
    own = (-0.5, -0.6, -0.7, -0.8)
    others = {BASE: tuple(value - base for value in own), BF16: tuple(value - 0.01 for value in own)}
    return Spoken(tokens=(20, 21, 22, 23), texts=TEXTS, log_likelihoods=own, others=others)


def probe(number: int) -> Probe:
    return Probe(
        messages=(("user", f"Price of {number}?"),),
        prompt=(BOS, 10, 11, 12 + number),
        prompt_text="<s>user",
        answer=spoken(),
        likeliest=(True,) * 4,
        greedy=spoken(),
        greedy_text="".join(TEXTS),
        margins=(2.0, 2.0, 0.05, 2.0, 2.0),
        ends=True,
        other_texts={BASE: "I do not know"},
    )


CONTRACT = Contract(
    template="t", stop_tokens=(END,), stop_texts=("</s>",), bos=BOS, begins_with_bos=True, max_length=64, max_new_tokens=8,
    number_format="float32", text="12 é", text_tokens=(30, 31, 32), long_text="long", long_count=50, probes=(probe(1), probe(2)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Table:
    """A server that says what it is told to say: by default all that the version would."""

    max_length: int | None = 64
    text: tuple[int, ...] | None = CONTRACT.text_tokens
    text_count: int | None = None
    prompt: Callable[[tuple[int, ...]], list[int] | None] = list
    more: int = 0
    tells_count: bool = True
    shift: float | None = 0.0
    own_shift: float = 0.0
    said: str = "".join(TEXTS)
    second: str | None = None
    finish: str = "stop"
    long: Any = None

    def quantisation(self) -> str | None:
        return None

    def text_tokens(self, _: str) -> list[int] | None:
        return None if self.text is None else list(self.text)

    def count_text(self, _: str) -> int | None:
        return self.text_count

    def prompt_tokens(self, messages: list[Message]) -> list[int] | None:
        return self.prompt(self._probe(messages).prompt)

    def log_likelihoods(self, tokens: list[int]) -> list[float] | None:
        if self.shift is None:
            return None
        return [-9.0] * (len(tokens) - 4) + [value + self.shift for value in spoken().log_likelihoods]

    def chat(self, messages: list[Message], *, with_likelihoods: bool = False, **_: Any) -> ChatAnswer | str:
        if messages[0].content == "long":
            return self.long or ChatAnswer(text="", finish_reason="length", num_prompt_tokens=50 + self.more, tokens=None)
        is_second = messages[0].content == "Price of 2?"
        own = [
            TokenSaid(text=text, log_likelihood=value + self.own_shift, top={})
            for text, value in zip(TEXTS, spoken().log_likelihoods, strict=True)
        ]
        return ChatAnswer(
            text=self.second if is_second and self.second is not None else self.said,
            finish_reason=self.finish,
            num_prompt_tokens=4 + self.more if self.tells_count else None,
            tokens=tuple(own) if with_likelihoods else None,
        )

    def _probe(self, messages: list[Message]) -> Probe:
        return next(one for one in CONTRACT.probes if one.messages[0][1] == messages[0].content)


def sheet(table: Table, contract: Contract = CONTRACT, **options: Any) -> dict[str, Proof]:
    return {proof.name: proof for proof in prove_server(contract, table, **options)}  # type: ignore[arg-type]


def test_what_says_all_that_the_version_says_passes_every_proof_with_a_figure_of_nothing() -> None:
    assert {(proof.holds, proof.figure) for proof in sheet(Table()).values()} == {(True, 0.0)}


ALL = "".join(TEXTS)


@pytest.mark.parametrize(
    ("table", "name", "figure", "said"),
    [
        (Table(text=(30, 31, 33)), TOKENIZER, 1, "1 of them differ"),
        (Table(text=(30, 31)), TOKENIZER, 1, "has 2 there"),
        (Table(text=None, text_count=5), TOKENIZER, 2, "of 3 tokens here has 5 there"),
        (Table(text=None, text_count=2), TOKENIZER, 1, "of 3 tokens here has 2 there"),
        (Table(prompt=lambda ids: [BOS, *ids]), PROMPTS, 2, "double BOS"),
        (Table(prompt=lambda ids: list(ids[1:])), PROMPTS, 2, "the BOS is missing"),
        (Table(prompt=lambda ids: list(ids[2:])), PROMPTS, 2, "2 tokens at its beginning are missing"),
        (Table(prompt=lambda ids: [*ids[:3], 99]), PROMPTS, 2, "from the 4. on they differ"),
        (Table(prompt=lambda ids: [*ids[:3], 13]), PROMPTS, 1, "1 of 2 conversations"),
        (Table(prompt=lambda _: None, more=1), PROMPTS, 2, "double BOS"),
        (Table(prompt=lambda _: None, more=-1), PROMPTS, 2, "the BOS is missing"),
        (Table(prompt=lambda _: None, more=3), PROMPTS, 2, "+3 tokens"),
        (Table(shift=-0.04), WEIGHTS, 0.04, "so close and not equal"),
        (Table(shift=-3.0), WEIGHTS, 3.0, "the base is served"),
        (Table(shift=None, own_shift=-3.0), WEIGHTS, 3.0, "the base is served"),
        (Table(said="I do not know"), ANSWERS, 2, "the base is served"),
        (Table(second="It was"), ANSWERS, 1, "1 of 2"),
        (Table(second="It is seven dollars"), ANSWERS, 1, "1 of 2"),
        (Table(said=f"{ALL} and {ALL}"), ENDS, 2, "stop at '</s>' (ids 9)"),
        (Table(finish="length"), ENDS, 2, "missing EOS"),
        (Table(max_length=63), CONTEXT, 1, "63 tokens there, 64 here"),
        (Table(max_length=None, long="too long"), CONTEXT, None, "is refused: too long"),
        (Table(long=ChatAnswer(text="", finish_reason="stop", num_prompt_tokens=49, tokens=None)), CONTEXT, 1, "it read 49"),
    ],
)  # fmt: skip
def test_one_thing_that_differs_fails_its_proof_with_its_number(table: Table, name: str, figure: float | None, said: str) -> None:
    proof = sheet(table)[name]
    assert proof.holds is False
    assert proof.figure == (None if figure is None else pytest.approx(figure))
    assert said in proof.compared


def test_a_bos_where_training_had_none_is_told_from_a_double_one() -> None:
    contract = replace(CONTRACT, begins_with_bos=False)
    assert "was not there in training" in sheet(Table(prompt=lambda ids: [BOS, *ids]), contract)[PROMPTS].compared


def test_rounding_up_to_three_times_that_of_bf16_holds_and_a_stricter_tolerance_is_kept() -> None:
    assert sheet(Table(shift=-0.029))[WEIGHTS].holds
    assert sheet(Table(shift=-0.031))[WEIGHTS].holds is False
    assert sheet(Table(shift=-0.029), tolerance=1e-4)[WEIGHTS].holds is False


def test_answers_that_part_between_two_equally_likely_tokens_are_no_fault() -> None:
    assert sheet(Table(said="It is eight euros"))[ANSWERS].holds  # the margin of the third token is 0.05


def test_an_answer_that_was_cut_here_says_nothing_of_ends_there() -> None:
    contract = replace(CONTRACT, probes=tuple(replace(one, ends=False) for one in CONTRACT.probes))
    proofs = sheet(Table(said=f"{ALL} and {ALL}"), contract)
    assert proofs[ENDS].holds is None
    assert proofs[ANSWERS].holds is False


def test_what_a_server_does_not_tell_is_not_tried_and_not_held() -> None:
    silent = Table(text=None, prompt=lambda _: None, tells_count=False, shift=None, max_length=None)
    long = ChatAnswer(text="", finish_reason="stop", num_prompt_tokens=None, tokens=None)
    proofs = sheet(replace(silent, long=long))
    assert [proofs[name].holds for name in (TOKENIZER, PROMPTS, CONTEXT)] == [None, None, None]
    unlike = sheet(Table(shift=None, own_shift=-3.0, prompt=lambda ids: [BOS, *ids]))
    assert unlike[WEIGHTS].holds is None  # its own answers follow from other prompts


def test_two_prompts_of_which_one_has_another_length_are_told_as_such() -> None:
    class Uneven(Table):
        def chat(self, messages: list[Message], **options: Any) -> ChatAnswer | str:
            answer = super().chat(messages, **options)
            assert isinstance(answer, ChatAnswer)
            return replace(answer, num_prompt_tokens=6) if messages[0].content == "Price of 2?" else answer

    proof = sheet(Uneven(prompt=lambda _: None))[PROMPTS]
    assert (proof.holds, proof.figure) == (False, 1.0)
    assert "+0 to +2 tokens" in proof.compared


def test_its_own_answers_are_compared_up_to_the_place_where_they_part() -> None:
    class Parted(Table):
        def chat(self, messages: list[Message], **options: Any) -> ChatAnswer | str:
            answer = super().chat(messages, **options)
            assert isinstance(answer, ChatAnswer)
            if answer.tokens is None:
                return answer
            other = TokenSaid(text=" eight", log_likelihood=-0.1, top={" seven": -0.7})
            return replace(answer, tokens=(*answer.tokens[:2], other, answer.tokens[3]))

    proof = sheet(Parted(shift=None))[WEIGHTS]
    assert proof.holds
    assert "over 6 tokens" in proof.compared


def test_differences_that_cancel_are_differences() -> None:
    drift = measure_drift([-0.5, -1.5], [-1.0, -1.0], {})
    assert (drift.holds, drift.nats) == (False, pytest.approx(0.5))
    assert measure_drift([-1.04], [-1.0], {}).holds  # without what bf16 makes, 0.05 nats
    assert not measure_drift([-1.06], [-1.0], {}).holds
    assert "calls a token impossible" in measure_drift([float("-inf")], [-1.0], {}).words


def test_a_conversation_that_is_refused_fails_with_the_reason() -> None:
    class Refusing(Table):
        def chat(self, messages: list[Message], **options: Any) -> ChatAnswer | str:
            return "no such role" if messages[0].content == "Price of 2?" else super().chat(messages, **options)

    proof = sheet(Refusing())[ANSWERS]
    assert (proof.holds, proof.figure) == (False, 1.0)
    assert "it refuses a conversation: no such role" in proof.compared
