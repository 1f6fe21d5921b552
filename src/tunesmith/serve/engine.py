"""What a model must offer to be served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tunesmith.errors import DataError
from tunesmith.records import Message

__all__ = [
    "BatchingEngine",
    "DescribedEngine",
    "EmbeddingEngine",
    "Engine",
    "MeasuredEngine",
    "Piece",
    "SamplingParams",
    "Scored",
    "TokenEngine",
    "TokenLogprob",
    "Unanswerable",
    "Wait",
]


class TokenLogprob(NamedTuple):
    """A token of an answer, how likely the model found it in nats, and the likeliest in its place, the likeliest first."""

    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()
    raw: bytes | None = None
    """What it stands for, where that is known: a token may be a part of a character, whose text tells nothing."""


class Unanswerable(DataError):
    """A field of a request asks for what cannot be given."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class Piece(NamedTuple):
    """A bit of an answer. Only the last one has a `finish_reason`: `stop` or `length`.

    `text` is whole characters: an engine keeps the bytes of an unfinished one back, and may send an empty text meanwhile.
    """

    text: str
    num_tokens: int
    finish_reason: str | None
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of its tokens, where they were asked for."""
    answer: int = 0
    """Which of several answers to one request it belongs to."""
    num_prompt_tokens: int | None = None
    """Of the prompt, where the engine knows better now than `count_prompt` did."""
    num_cached_tokens: int | None = None
    """Of the prompt, those that needed no reading, where the engine knows; told once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How an answer is to be chosen; what is left out asks for nothing."""

    max_tokens: int | None = None
    """None, or more than there is room for: up to the end of the context."""
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """In (0, 1]."""
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    """Of the draws; None draws a fresh one."""
    num_logprobs: int | None = None
    """Tell how likely each token is, and so many others in its place; None: tell nothing."""
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the answer must fit."""
    row: int = 0
    """Which of several answers to one request: with the seed it settles the draws."""


class Wait(Enum):
    """What a stream gives when it has nothing new before its engine's next `step`."""

    FOR_STEP = "for step"


class Engine(Protocol):
    """A model that answers conversations. All calls come from one thread.

    One request is answered at a time, unless it is a `BatchingEngine`.

    `DataError` says that a conversation cannot be answered and becomes a 400, as `Unanswerable` does, which names another field; any other
    exception is the server's fault.
    """

    @property
    def ref(self) -> str:
        """The immutable version that answers, such as `boutique@7`."""
        ...

    @property
    def max_length(self) -> int:
        """The context in tokens: prompt and answer together."""
        ...

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        """Tokens of a conversation, the generation prompt included."""
        ...

    def stream(self, messages: Sequence[Message], params: SamplingParams, /) -> Iterator[Piece | Wait]:
        """Answer piece by piece; closing the generator abandons the answer. Only a `BatchingEngine` says `Wait`.

        `messages` leaves room for at least one token.
        """
        ...


@runtime_checkable
class BatchingEngine(Engine, Protocol):
    """An engine that answers many at once: their streams are read in turns, and after each turn comes one step for all."""

    @property
    def max_running(self) -> int:
        """Streams that it goes on with at once; 1 or more."""
        ...

    def step(self) -> None:
        """Advance every stream that waits."""
        ...

    def reset(self) -> None:
        """Forget every answer after a step that failed."""
        ...


class Scored(NamedTuple):
    """What a model says of one token of a text: its log-likelihood in nats after all before it, and the likeliest in its place.

    The first token of a text stands after nothing: None, and no others.
    """

    log_likelihood: float | None
    top: tuple[tuple[int, float], ...]


@runtime_checkable
class TokenEngine(Engine, Protocol):
    """An engine that can also be asked token by token: `/v1/completions` and `/tokenize`. Calls come as an `Engine`'s do."""

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary: every id is below it."""
        ...

    def encode_text(self, text: str, /, *, begun: bool) -> list[int]:
        """Tokens of a plain text; `begun` puts in front what texts of this model begin with. No text becomes a control token."""
        ...

    def encode_prompt(self, messages: Sequence[Message], /) -> list[int]:
        """Tokens of a conversation, the generation prompt included."""
        ...

    def texts(self, tokens: Sequence[int], /) -> list[str]:
        """Each token's text by itself, a control token's by its name."""
        ...

    def text(self, tokens: Sequence[int], /) -> str:
        """The text of all of them, without control tokens."""
        ...

    def go_on(self, tokens: Sequence[int], params: SamplingParams, /) -> Iterator[int | Wait | None]:
        """Go on token by token; None, and the end, where the model stops by itself. Only a `BatchingEngine` says `Wait`."""
        ...

    def score(self, tokens: Sequence[int], /, *, num_top: int) -> list[Scored]:
        """What the model says of each token."""
        ...


@runtime_checkable
class DescribedEngine(TokenEngine, Protocol):
    """An engine whose tokenizer can be described: `/tokenizer_info` and `/detokenize`."""

    @property
    def tokenizer_info(self) -> Mapping[str, Any]:
        """The tokenizer's configuration as transformers writes it, with its class and the chat template, and without any path."""
        ...

    def full_text(self, tokens: Sequence[int], /) -> str:
        """The text of all of them, control tokens by their names."""
        ...

    def control_token(self, name: str, /) -> int | None:
        """The id of the control token with this name; None where there is none."""
        ...


@runtime_checkable
class EmbeddingEngine(TokenEngine, Protocol):
    """An engine that also turns texts into vectors: `/v1/embeddings`."""

    @property
    def num_dimensions(self) -> int:
        """Length of each vector."""
        ...

    def embed(self, texts: Sequence[Sequence[int]], /) -> list[list[float]]:
        """A vector of length 1 for each text, given as tokens; none is empty or longer than the context."""
        ...


@runtime_checkable
class MeasuredEngine(Engine, Protocol):
    """An engine that tells what its answers hold of memory. Unlike all else, this is asked from any thread."""

    @property
    def memory_bytes(self) -> int:
        """Held by keys and values of running answers; 0 where the model keeps them itself."""
        ...

    @property
    def max_memory_bytes(self) -> int:
        """That they may hold."""
        ...
