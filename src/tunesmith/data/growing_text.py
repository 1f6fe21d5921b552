"""Text that grows token by token, in whole characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["GrowingText"]


class GrowingText:
    """Turns tokens into text as they come. A character whose bytes are spread over tokens waits for the last of them."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._context = 0
        self._told = 0

    def add(self, token: int) -> str:
        """What a token adds to the text; empty while a character is unfinished."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._context :])
        if text.endswith("\ufffd"):
            return ""
        return self._advance(text)

    def rest(self) -> str:
        """What is left at the end."""
        return self._advance(self._decode(self._tokens[self._context :]))

    def _advance(self, text: str) -> str:
        """What is new in `text` (everything from the context on). The tokens just told are the next piece's context."""
        new = text[len(self._decode(self._tokens[self._context : self._told])) :]
        self._context, self._told = self._told, len(self._tokens)
        return new
