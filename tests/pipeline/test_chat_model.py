"""Text as it comes: whole characters only, and all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.chat import ChatFormat
from tunesmith.data.growing_text import GrowingText
from tunesmith.model import load_model, open_base, this_machine
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.records import Message, Role


def decode_bytes(tokens: list[int]) -> str:
    """A byte tokenizer: each token is one byte, so that every character beyond ASCII is spread over tokens."""
    return bytes(tokens).decode("utf-8", errors="replace")


@given(st.text(max_size=40))
def test_the_pieces_are_whole_characters_and_join_to_the_text(text: str) -> None:
    text = text.replace("\ufffd", "?").encode("utf-8", errors="ignore").decode()
    growing = GrowingText(decode_bytes)
    pieces = [growing.add(token) for token in text.encode()]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + growing.rest() == text


def test_an_unfinished_character_waits_and_is_told_at_the_end() -> None:
    growing = GrowingText(decode_bytes)
    first, second, third = "€".encode()
    assert [growing.add(first), growing.add(second)] == ["", ""]
    assert growing.add(third) == "€"
    assert growing.add(first) == ""
    assert growing.rest() == "\ufffd"


def decode_words(tokens: list[int]) -> str:
    """Sentencepiece's way: the blank before the first word is dropped, so text depends on what stands before."""
    return " ".join(f"w{token}" for token in tokens)


def test_blanks_between_words_are_kept_by_tokenizers_that_drop_the_first() -> None:
    growing = GrowingText(decode_words)
    assert "".join([*(growing.add(token) for token in (1, 2, 3, 4)), growing.rest()]) == "w1 w2 w3 w4"


def test_an_answer_tells_whether_the_model_ended_it() -> None:
    """Streaming watches each token and says by itself why it stopped."""
    base = open_base("tunesmith/base", folder=Path("/"), cache=Path("/")).path
    machine = this_machine()
    parts: dict[str, Any] = {"model": load_model(base, machine=machine), "chat": ChatFormat.load(base), "machine": machine}
    asked = [(Message(role=Role.USER, content=text),) for text in ("Hello!", "Where is my order?", "Hi")]
    finished = set()
    for most in (1, 3, 14, 15, 16, 64):
        model = ChatModel(ref="base", max_length=512, max_new_tokens=most, base_folder=base, **parts)
        answers = model.answer(asked)
        assert [answered.text for answered in answers] == model.generate(asked)
        for messages, answered in zip(asked, answers, strict=True):
            *_, last = model.stream(messages, max_tokens=most, temperature=0.0)
            assert answered.has_ended is (last.finish_reason == "stop")
            finished.add(answered.has_ended)
    assert finished == {True, False}
