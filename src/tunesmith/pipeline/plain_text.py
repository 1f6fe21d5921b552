"""A model that goes on with plain text, as outside benchmarks ask: no roles and no template.

Tokens are those that the `hf` backend of lm-evaluation-harness (0.4.13) makes of the same texts: a text begins as the tokenizer begins it,
and only a continuation of nothing, or a whole text, is given a token to begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model.forward import Continued
    from tunesmith.model.machine import Machine

__all__ = ["PlainText", "rolling_windows"]

_Pair = tuple[list[int], list[int]]


class PlainText:
    """One model. Made by `ChatModel.plain_text`."""

    def __init__(
        self,
        *,
        model: Any,
        chat: ChatFormat,
        machine: Machine,
        max_length: int,
        around: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Keep the parts, which are those of `ChatModel`."""
        self._model = model
        self._chat = chat
        self._machine = machine
        self._max_length = max_length
        self._around = around

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Continued]:
        """Log-probability of continuations, each given its context; too long a context loses its beginning.

        Raises:
            ModelError: a continuation is empty, or longer than the model's context.
        """
        return self._scored([self._pair(context, continuation) for context, continuation in pairs])

    def score_whole(self, texts: Sequence[str]) -> list[float]:
        """Log-probability of whole texts of any length, each token given at most the model's context before it.

        Where a tokenizer begins a text itself, that token is scored too, as the harness does.
        """
        found = []
        for text in texts:
            tokens = self._chat.encode_text(text)
            windows = list(rolling_windows(tokens, prefix=self._prefix(), max_length=self._max_length))
            found.append(sum(scored.logprob for scored in self._scored(windows)))
        return found

    def continue_texts(self, texts: Sequence[str], *, until: Sequence[str], max_new_tokens: int) -> list[str]:
        """Go on greedily, up to the first of the texts `until`, which is left out; too long a text loses its beginning.

        Raises:
            ModelError: so many new tokens leave no room for the text.
        """
        from tunesmith.model import Sampling, generate

        room = self._max_length - max_new_tokens
        if room < 1:
            raise ModelError(
                f"an answer of {max_new_tokens:,} tokens leaves no room for its question in the model's context of {self._max_length:,}. "
                "Give the task a smaller `max_gen_toks`"
            )
        prompts = [(self._chat.encode_text(text) or [self._prefix()])[-room:] for text in texts]
        with self._around():
            answers = generate(
                self._model,
                prompts,
                sampling=Sampling(max_new_tokens=max_new_tokens),
                stop_tokens=self._chat.stop_tokens,
            )
        return [_before(self._chat.decode(answer), until=until) for answer in answers]

    def _scored(self, pairs: Sequence[_Pair]) -> list[Continued]:
        from tunesmith.model import continuation_scores

        with self._around():
            return continuation_scores(self._model, pairs, device=self._machine.device)

    def _pair(self, context: str, continuation: str) -> _Pair:
        """Tokens of both. Blanks at the end of a context belong to the continuation, where tokenizers expect them."""
        bare = context.rstrip()
        whole = self._chat.encode_text(context + continuation)
        before = self._chat.encode_text(bare) if bare else []
        if not before:  # nothing to go on from: the token that begins texts, which is not scored
            before = [self._prefix()]
            whole = whole if whole[:1] == before else [*before, *whole]
        after = whole[len(before) :]
        if not after:
            raise ModelError(f"the continuation {continuation!r} has no token of its own after {bare[-40:]!r}")
        if len(after) > self._max_length:
            raise ModelError(f"a continuation of {len(after)} tokens is longer than the model's context of {self._max_length}")
        return before[-max(self._max_length - len(after) + 1, 1) :], after

    def _prefix(self) -> int:
        """What stands before a text: the token that begins texts, or else one that ends them."""
        bos = self._chat.bos_token
        return bos if bos is not None else self._chat.stop_tokens[0]


def rolling_windows(tokens: Sequence[int], *, prefix: int, max_length: int) -> Iterator[_Pair]:
    """Cut a long text so that every token is predicted once, the last of them from a full context.

    Args:
        tokens: of the text.
        prefix: stands before the first.
        max_length: tokens that the model reads at once.

    Yields:
        Context and continuation; together at most `max_length` + 1 tokens, of which the last is only predicted.

    >>> list(rolling_windows([0, 1, 2, 3, 4], prefix=9, max_length=3))
    [([9], [0, 1, 2]), ([1, 2], [3, 4])]
    """
    before = [prefix, *tokens]
    for start in range(0, len(tokens), max_length):
        end = min(start + max_length, len(tokens))
        first = max(end - max_length, 0) if start else 0
        yield before[first : start + 1], list(tokens[start:end])


def _before(text: str, *, until: Sequence[str]) -> str:
    ends = [at for stop in until if stop and (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
