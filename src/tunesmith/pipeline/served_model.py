"""A chat model as a server offers it: many answers at once, and tokens one by one for `/v1/completions` and `/tokenize`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.data.grammar import AnswerShape, AnswerShapes
from tunesmith.data.growing_text import GrowingText
from tunesmith.errors import DataError
from tunesmith.records import Message
from tunesmith.serve import Piece, SamplingParams, Scored, TokenLogprob, Unanswerable, Wait

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model import Choice, Packing, Said, Sampling

__all__ = ["ServedModel"]

_MEMORY_SHARE = 0.25
"""Of the free memory: for keys and values of running answers, and as much again for beginnings that are kept."""


class ServedModel:
    """A `serve.TokenEngine` that is described, batches, embeds and tells its memory: every protocol of `serve.engine`."""

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
        packing: Packing = "packed",
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
            packing: how weights lie and multiply; they stay as they are while they are served.

        Raises:
            ModelError: int8 of a model for which it is not known, or which it moves too far.
        """
        self.ref = ref
        self.max_length = max_length
        self.num_tokens = min(chat.num_tokens, int(model.get_input_embeddings().weight.shape[0]))
        self.num_dimensions = int(model.get_input_embeddings().weight.shape[1])
        self.max_running = max_running
        self.encode_prompt = chat.encode_prompt  # the very tokens that training saw before an answer
        self.text = chat.decode
        self.full_text = partial(chat.decode, keep_control=True)
        self.control_token = chat.control_token
        self.tokenizer_info = chat.description
        self._model = model
        self._chat = chat
        self._prefix = list(prefix)
        self._around = around
        self._shapes = AnswerShapes(chat)
        self._packing: Packing = packing
        self._mail: dict[int, deque[Said]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget every answer under way."""
        from tunesmith.model import Batch
        from tunesmith.model.machine import free_memory

        self.max_memory_bytes = room = int(free_memory()[0] * _MEMORY_SHARE)
        self._mail.clear()
        with self._around():
            self._batch = Batch(
                self._model,
                max_requests=self.max_running,
                max_length=self.max_length,
                memory_bytes=room,
                prefix_bytes=room,
                packing=self._packing,
            )

    @property
    def memory_bytes(self) -> int:
        return self._batch.memory_bytes

    def step(self) -> None:
        """Advance every answer."""
        with self._around():
            for said in self._batch.step():
                self._mail[said.id].append(said)

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        """Tokens of a conversation, the generation prompt included."""
        return len(self._prefix) + len(self._chat.encode_prompt(messages))

    def stream(self, messages: Sequence[Message], params: SamplingParams, /) -> Iterator[Piece | Wait]:
        """Answer piece by piece, in whole characters. The last piece carries the reason for the end."""
        prompt = [*self._prefix, *self._chat.encode_prompt(messages)]
        shape = self._shape(params)
        text = GrowingText(self._chat.decode)
        with closing(self._written(prompt, params, shape=shape)) as written:
            for said in written:
                if isinstance(said, Wait):
                    yield said
                    continue
                if said.choice is not None:
                    added, logprobs = text.add(said.choice.token), self._logprobs(said.choice)
                    yield Piece(added, 1, None, logprobs, num_cached_tokens=said.num_cached)
                if said.finish is not None:
                    yield Piece(text.rest(), 0, said.finish)

    def encode_text(self, text: str, /, *, begun: bool) -> list[int]:
        """Tokens of a plain text."""
        return self._chat.encode_text(text, begun=begun)

    def texts(self, tokens: Sequence[int], /) -> list[str]:
        """Each token's text by itself."""
        return [self._chat.decode([token], keep_control=True) for token in tokens]

    def embed(self, texts: Sequence[Sequence[int]], /) -> list[list[float]]:
        """The mean of each text's last hidden states, of length 1."""
        from tunesmith.model import embed_texts

        with self._around():
            return embed_texts(self._model, texts, prefix=self._prefix)

    def go_on(self, tokens: Sequence[int], params: SamplingParams, /) -> Iterator[int | Wait | None]:
        """Generate token by token; None where the model ends its turn."""
        with closing(self._written(tokens, replace(params, num_logprobs=None))) as written:
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

    def _logprobs(self, choice: Choice) -> tuple[TokenLogprob, ...]:
        if choice.logprob is None:
            return ()
        top = tuple(self._named(token, logprob) for token, logprob in choice.top)
        return (self._named(choice.token, choice.logprob)._replace(top=top),)

    def _named(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(self._chat.decode([token], keep_control=True), logprob, raw=self._chat.token_bytes(token))

    def _shape(self, params: SamplingParams) -> AnswerShape | None:
        try:
            return None if params.schema is None else self._shapes.json_schema(params.schema)
        except DataError as error:
            raise _of_schema(error) from error

    def _written(
        self, prompt: Sequence[int], params: SamplingParams, *, shape: AnswerShape | None = None
    ) -> Generator[Said | Wait, None, None]:
        """What the batch says for one request; abandoned when this is closed."""
        from tunesmith.model import Request

        batch = self._batch
        room = self.max_length - len(prompt)
        request = Request(
            prompt=prompt,
            sampling=self._sampling(params, max_new_tokens=min(params.max_tokens or room, room)),
            stop_tokens=frozenset(self._chat.stop_tokens),
            row=params.row,
            constraint=shape,
        )
        number = batch.add(request)
        mail = self._mail[number] = deque()
        try:
            while True:
                if not mail:
                    yield Wait.FOR_STEP
                    continue
                said = mail.popleft()
                if said.error is not None:
                    raise _of_schema(said.error)
                yield said
                if said.finish is not None:
                    return
        finally:
            batch.cancel(number)
            if self._batch is batch:
                self._mail.pop(number, None)

    def _sampling(self, params: SamplingParams, *, max_new_tokens: int) -> Sampling:
        from tunesmith.model import Sampling

        if strange := [token for token in params.logit_bias if token >= self.num_tokens]:
            message = f"logit_bias: there is no token {strange[0]}; this model has {self.num_tokens:,} tokens, the first is 0"
            raise Unanswerable(message, field="logit_bias")
        given = {one.name: getattr(params, one.name) for one in fields(Sampling) if one.name != "max_new_tokens"}
        return Sampling(max_new_tokens=max_new_tokens, **given)


def _of_schema(error: Exception) -> Exception:
    return Unanswerable(str(error), field="response_format") if isinstance(error, DataError) else error
