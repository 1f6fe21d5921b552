"""A chat model as a server offers it: many answers at once, and tokens one by one for `/v1/completions` and `/tokenize`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Any

from tunesmith.pipeline.growing_text import GrowingText
from tunesmith.records import Message
from tunesmith.serve import Piece, Scored, Wait

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model import Said, Sampling

__all__ = ["ServedModel"]

_MEMORY_SHARE = 0.25
"""Of the free memory: for keys and values of running answers, and as much again for beginnings that are kept."""


class ServedModel:
    """A `serve.TokenEngine` and a `serve.BatchingEngine`."""

    def __init__(
        self,
        *,
        ref: str,
        model: Any,
        chat: ChatFormat,
        max_length: int,
        prefix: Sequence[int] = (),
        around: Callable[[], AbstractContextManager[None]],
        max_running: int = 32,
    ) -> None:
        """Keep the parts.

        Args:
            ref: the version's name.
            model: a transformers or PEFT model.
            chat: its tokenizer and template.
            max_length: its context in tokens.
            prefix: tokens in front of every conversation, such as those that stand for a soft prompt.
            around: entered for every use of the model.
            max_running: answers that are written at once.
        """
        self.ref = ref
        self.max_length = max_length
        self.num_tokens = min(chat.num_tokens, int(model.get_input_embeddings().weight.shape[0]))
        self.max_running = max_running
        self._model = model
        self._chat = chat
        self._prefix = list(prefix)
        self._around = around
        self._mail: dict[int, deque[Said]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget every answer under way."""
        from tunesmith.model import Batch
        from tunesmith.model.machine import free_memory

        room = int(free_memory()[0] * _MEMORY_SHARE)
        self._mail.clear()
        with self._around():
            self._batch = Batch(
                self._model, max_requests=self.max_running, max_length=self.max_length, memory_bytes=room, prefix_bytes=room
            )

    def step(self) -> None:
        """Advance every answer."""
        with self._around():
            for said in self._batch.step():
                self._mail[said.id].append(said)

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        """Tokens of a conversation, the generation prompt included."""
        return len(self._prefix) + len(self._chat.encode_prompt(messages))

    def stream(
        self, messages: Sequence[Message], /, *, max_tokens: int | None, temperature: float, top_p: float, seed: int | None
    ) -> Iterator[Piece | Wait]:
        """Answer piece by piece, in whole characters. The last piece carries the reason for the end."""
        from tunesmith.model import Sampling

        prompt = [*self._prefix, *self._chat.encode_prompt(messages)]
        room = self.max_length - len(prompt)
        sampling = Sampling(max_new_tokens=min(max_tokens or room, room), temperature=temperature, top_p=top_p, seed=seed)
        text = GrowingText(self._chat.decode)
        with closing(self._written(prompt, sampling=sampling)) as written:
            for said in written:
                if isinstance(said, Wait):
                    yield said
                    continue
                if said.choice is not None:
                    yield Piece(text=text.add(said.choice.token), num_tokens=1, finish_reason=None)
                if said.finish is not None:
                    yield Piece(text=text.rest(), num_tokens=0, finish_reason=said.finish)

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
    ) -> Iterator[int | Wait | None]:
        """Generate token by token; None where the model ends its turn."""
        from tunesmith.model import Sampling

        sampling = Sampling(max_new_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        with closing(self._written(tokens, sampling=sampling)) as written:
            for said in written:
                if isinstance(said, Wait):
                    yield said
                elif said.choice is not None:
                    yield said.choice.token
                else:
                    yield None

    def score(self, tokens: Sequence[int], /, *, num_top: int) -> list[Scored]:
        """Log-likelihoods by one forward pass over all."""
        from tunesmith.model import score_tokens

        with self._around():
            scores = score_tokens(self._model, tokens, num_top=num_top)
        return [Scored(None, ()), *(Scored(score.log_likelihood, score.top) for score in scores)]

    def _written(self, prompt: Sequence[int], *, sampling: Sampling) -> Generator[Said | Wait, None, None]:
        """What the batch says for one request; abandoned when this is closed."""
        from tunesmith.model import Request

        batch = self._batch
        number = batch.add(Request(prompt=prompt, sampling=sampling, stop_tokens=frozenset(self._chat.stop_tokens)))
        mail = self._mail[number] = deque()
        try:
            while True:
                if not mail:
                    yield Wait.FOR_STEP
                    continue
                said = mail.popleft()
                yield said
                if said.finish is not None:
                    return
        finally:
            batch.cancel(number)
            if self._batch is batch:
                self._mail.pop(number, None)
