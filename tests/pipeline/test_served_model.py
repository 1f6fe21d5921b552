"""The embedded base behind the lane: many at once get what each would get alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tunesmith.model
from tunesmith.data.chat import ChatFormat
from tunesmith.model import load_model, this_machine
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.served_model import ServedModel
from tunesmith.records import Message, Role
from tunesmith.serve import BatchingEngine, Piece, TokenEngine, Wait

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
QUESTIONS = [
    "Do you open on Sundays?",
    "Hi",
    "What is the capital of France, and why is it there?",
    "Tell me a story about a dog.",
]
GREEDY: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0, "top_p": 1.0, "seed": None}


@pytest.fixture(scope="module")
def model() -> ChatModel:
    chat, machine = ChatFormat.load(EMBEDDED), this_machine()
    loaded = load_model(EMBEDDED, machine=machine)
    return ChatModel(ref="base@1", model=loaded, chat=chat, machine=machine, max_length=128, max_new_tokens=12)


def asked(question: str) -> tuple[Message, ...]:
    return (Message(role=Role.USER, content=question),)


def finish(served: ServedModel, streams: dict[str, Iterator[Piece | Wait]]) -> dict[str, list[Piece]]:
    """Read all streams in turns, as the lane does."""
    found: dict[str, list[Piece]] = {name: [] for name in streams}
    going_on = dict(streams)
    while going_on:
        for name, stream in list(going_on.items()):
            for piece in stream:
                if isinstance(piece, Wait):
                    break
                found[name].append(piece)
            else:
                del going_on[name]
        if going_on:
            served.step()
    return found


def test_it_is_what_a_lane_can_batch(model: ChatModel) -> None:
    served = model.served()
    assert isinstance(served, BatchingEngine)
    assert isinstance(served, TokenEngine)


def test_answers_written_together_are_those_written_alone(model: ChatModel) -> None:
    expected = dict(zip(QUESTIONS, model.generate([asked(question) for question in QUESTIONS]), strict=True))
    served = model.served()
    found = finish(served, {question: served.stream(asked(question), **GREEDY) for question in QUESTIONS})
    assert {question: "".join(piece.text for piece in pieces).strip() for question, pieces in found.items()} == expected
    for pieces in found.values():
        assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish_reason in {"stop", "length"}
    assert len(set(expected.values())) == len(QUESTIONS)


def test_a_stream_that_is_closed_leaves_the_others_as_they_are(model: ChatModel) -> None:
    served = model.served()
    streams = {question: served.stream(asked(question), **GREEDY) for question in QUESTIONS}
    for stream in streams.values():
        assert next(stream) is Wait.FOR_STEP
    served.step()
    streams.pop(QUESTIONS[0]).close()  # type: ignore[attr-defined]
    found = finish(served, streams)
    for question, pieces in found.items():
        assert "".join(piece.text for piece in pieces).strip() == model.generate([asked(question)])[0]


def test_tokens_asked_one_by_one_are_those_of_the_answer(model: ChatModel) -> None:
    served = model.served()
    prompt = served.encode_prompt(asked(QUESTIONS[0]))
    tokens: list[int] = []
    stream = served.go_on(prompt, **GREEDY)
    for token in stream:
        if isinstance(token, Wait):
            served.step()
        elif token is not None:
            tokens.append(token)
    assert served.text(tokens).strip() == model.generate([asked(QUESTIONS[0])])[0]


def test_after_a_reset_nothing_of_before_is_told(model: ChatModel) -> None:
    served = model.served()
    old = served.stream(asked(QUESTIONS[0]), **GREEDY)
    assert next(old) is Wait.FOR_STEP
    served.reset()
    old.close()  # type: ignore[attr-defined]
    found = finish(served, {"new": served.stream(asked(QUESTIONS[1]), **GREEDY)})
    assert "".join(piece.text for piece in found["new"]).strip() == model.generate([asked(QUESTIONS[1])])[0]
