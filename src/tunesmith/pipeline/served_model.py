"""A chat model as a server offers it: conversations as before, and tokens one by one for `/v1/completions` and `/tokenize`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Any

from tunesmith.records import Message
from tunesmith.serve import Piece, Scored

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.serve import Engine

__all__ = ["ServedModel"]


class ServedModel:
    """A `serve.TokenEngine`. What is asked in words goes to the `Engine` that it is made of."""

    def __init__(
        self, engine: Engine, *, model: Any, chat: ChatFormat, around: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Keep the parts.

        Args:
            engine: answers conversations with the same model.
            model: a transformers or PEFT model.
            chat: its tokenizer and template.
            around: entered for every use of the model.
        """
        self.ref = engine.ref
        self.max_length = engine.max_length
        self.num_tokens = min(chat.num_tokens, int(model.get_input_embeddings().weight.shape[0]))
        self._engine = engine
        self._model = model
        self._chat = chat
        self._around = around

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        """As the engine does."""
        return self._engine.count_prompt(messages)

    def stream(
        self, messages: Sequence[Message], /, *, max_tokens: int | None, temperature: float, top_p: float, seed: int | None
    ) -> Iterator[Piece]:
        """As the engine does."""
        return self._engine.stream(messages, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)

    def encode_text(self, text: str, /, *, begun: bool) -> list[int]:
        """Tokens of a plain text."""
        return self._chat.encode_text(text, begun=begun)

    def encode_prompt(self, messages: Sequence[Message], /) -> list[int]:
        """Tokens of a conversation: the very ones that training saw before the answer."""
        return self._chat.encode_prompt(messages)

    def texts(self, tokens: Sequence[int], /) -> list[str]:
        """Each token's text by itself."""
        return [self._chat.decode([token], keep_control=True) for token in tokens]

    def text(self, tokens: Sequence[int], /) -> str:
        """The text of all, without control tokens."""
        return self._chat.decode(tokens)

    def go_on(
        self, tokens: Sequence[int], /, *, max_tokens: int, temperature: float, top_p: float, seed: int | None
    ) -> Iterator[int | None]:
        """Generate token by token; None where the model ends its turn."""
        from tunesmith.model import Sampling, decode

        sampling = Sampling(max_new_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        steps = decode(
            self._model, [tokens], sampling=sampling, stop_tokens=self._chat.stop_tokens, pad_token=self._chat.pad_token
        )
        with self._around(), closing(steps):
            for (token,) in steps:
                yield token

    def score(self, tokens: Sequence[int], /, *, num_top: int) -> list[Scored]:
        """Log-likelihoods by one forward pass over all."""
        from tunesmith.model import score_tokens

        with self._around():
            scores = score_tokens(self._model, tokens, num_top=num_top)
        return [Scored(None, ()), *(Scored(score.log_likelihood, score.top) for score in scores)]
