"""An engine without a model that offers all that an engine can: a token is a character, and an answer is its prompt again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.records import Message
from tunesmith.serve import Piece, SamplingParams, Scored

__all__ = ["WholeEngine"]

STOP = "<|stop|>"


class WholeEngine:
    """Every protocol of `serve.engine`; any id up to the largest is a token, and the context has no end worth a word."""

    def __init__(self, *, ref: str = "boutique@1", most: int = 8) -> None:
        self.ref = ref
        self.max_length = 2**40
        self.num_tokens = 2**31
        self.num_dimensions = 3
        self.memory_bytes = 1_000
        self.max_memory_bytes = 4_000
        self.num_passes = 0
        self.most = most
        self.num_running = 0

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        return sum(len(message.content) for message in messages)

    def stream(self, messages: Sequence[Message], params: SamplingParams, /) -> Iterator[Piece]:
        text = messages[-1].content[: min(params.max_tokens or self.most, self.most)]
        for character in text:
            yield Piece(character, 1, None)
        yield Piece("", 0, "stop")

    def encode_text(self, text: str, /, *, begun: bool) -> list[int]:
        return [*([1] if begun else []), *map(ord, text)]

    def encode_prompt(self, messages: Sequence[Message], /) -> list[int]:
        return [ord(character) for message in messages for character in message.content]

    def texts(self, tokens: Sequence[int], /) -> list[str]:
        return [STOP if token == 2 else chr(token) if 32 <= token < 0xD800 else f"<{token}>" for token in tokens]

    def text(self, tokens: Sequence[int], /) -> str:
        return "".join(self.texts([token for token in tokens if token > 2]))

    def full_text(self, tokens: Sequence[int], /) -> str:
        return "".join(self.texts(tokens))

    @property
    def tokenizer_info(self) -> Mapping[str, Any]:
        return {"tokenizer_class": "Characters", "chat_template": "", "eos_token": STOP}

    def control_token(self, name: str, /) -> int | None:
        return 2 if name == STOP else None

    def go_on(self, tokens: Sequence[int], params: SamplingParams, /) -> Iterator[int | None]:
        most = min(params.max_tokens or self.most, self.most)
        self.num_running += 1
        try:
            yield from ([*tokens[1:], *tokens] * 2)[params.row :][:most]
            if most == self.most:
                yield None
        finally:
            self.num_running -= 1

    def score(self, tokens: Sequence[int], /, *, num_top: int) -> list[Scored]:
        return [Scored(None, ()), *(Scored(-1.0, ((token, -1.0),) * num_top) for token in tokens[1:])]

    def embed(self, texts: Sequence[Sequence[int]], /) -> list[list[float]]:
        self.num_passes += 1
        return [[1.0, 0.0, float(len(text))] for text in texts]
