"""`POST /v1/embeddings`: texts as vectors, read from the served model by passes of a bounded size.

`dimensions` can only be as many as the vectors have: no model here was trained so that one could be cut.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from sys import byteorder
from typing import Literal

from starlette.types import ASGIApp

from tunesmith.serve.answer import embeddings
from tunesmith.serve.engine import BatchingEngine, EmbeddingEngine, Wait
from tunesmith.serve.one_answer import OneAnswer, Steps
from tunesmith.serve.refusal import Refusal, clipped
from tunesmith.serve.service import Service
from tunesmith.serve.wire_tokens import fields_of, read_texts

__all__ = ["EmbeddingRequest", "embed", "read_embedding_request"]

MAX_INPUTS = 2048
_TOKENS_PER_PASS = 2048
_FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts, or token ids, whose vectors are wanted."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    encoding: Literal["float", "base64"]
    num_dimensions: int | None
    """As many as the client counts on; None: as many as there are."""

    @property
    def contents(self) -> tuple[str | tuple[int, ...], ...]:
        """What is to be read."""
        return self.inputs


def read_embedding_request(value: object) -> EmbeddingRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, with up to 10 problems; `param` and `code` are those of the first.
    """
    fields = fields_of(value)
    fields.check_names(_FIELDS, {})
    encoding = fields.text("encoding_format") if fields.value.get("encoding_format") is not None else "float"
    if encoding not in ("float", "base64"):
        fields.wrong("encoding_format", f"must be float or base64, not {clipped(encoding)!r}")
    request = EmbeddingRequest(
        model=fields.text("model", required=True),
        inputs=read_texts(fields, "input", most=MAX_INPUTS),
        encoding="base64" if encoding == "base64" else "float",
        num_dimensions=fields.whole("dimensions", low=1, high=2**31),
    )
    fields.text("user")
    fields.problems.raise_if_any()
    return request


def embed(service: Service, *, max_body_bytes: int) -> ASGIApp:
    """The endpoint."""
    return OneAnswer(
        service,
        read=read_embedding_request,
        kind=EmbeddingEngine,  # type: ignore[type-abstract]
        answer=_embedded,
        lacking="gives no embeddings",
        max_body_bytes=max_body_bytes,
    )


def _embedded(engine: EmbeddingEngine, request: EmbeddingRequest) -> Steps:
    if request.num_dimensions not in (None, engine.num_dimensions):
        message = f"dimensions: this model's vectors have {engine.num_dimensions:,} numbers and cannot be cut; leave it out."
        raise Refusal(message, code="unsupported_parameter", param="dimensions")
    texts = [engine.encode_text(one, begun=True) if isinstance(one, str) else list(one) for one in request.inputs]
    for index, text in enumerate(texts):
        _check(text, engine=engine, where=f"input[{index}]")
    vectors: list[list[float]] = []
    for start, end in pairwise(_borders(texts)):
        vectors += engine.embed(texts[start:end])
        # Others are answered between two passes.
        yield Wait.FOR_STEP if isinstance(engine, BatchingEngine) and end < len(texts) else None
    encoded = [_base64(vector) if request.encoding == "base64" else vector for vector in vectors]
    yield embeddings(encoded, model=engine.ref, num_tokens=sum(map(len, texts)))


def _check(text: Sequence[int], *, engine: EmbeddingEngine, where: str) -> None:
    if not text:
        raise Refusal(f"{where}: has no tokens.", code="invalid_value", param="input")
    if (largest := max(text)) >= engine.num_tokens:
        message = (
            f"{where}: there is no token {largest}; this model's vocabulary has {engine.num_tokens:,} tokens, the first is 0."
        )
        raise Refusal(message, code="invalid_value", param="input")
    if len(text) > engine.max_length:
        message = f"{where}: has {len(text):,} tokens; the context holds {engine.max_length:,}."
        raise Refusal(message, code="context_length_exceeded", param="input")


def _borders(texts: Sequence[Sequence[int]]) -> list[int]:
    """Where each pass begins, and the end: as many texts as its tokens allow, one at least."""
    borders, room = [0], _TOKENS_PER_PASS
    for index, text in enumerate(texts):
        if len(text) > room and index > borders[-1]:
            borders.append(index)
            room = _TOKENS_PER_PASS
        room -= len(text)
    return [*borders, len(texts)]


def _base64(vector: Sequence[float]) -> str:
    """As OpenAI has it: 32-bit floats, the lowest byte first."""
    numbers = array("f", vector)
    if byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
