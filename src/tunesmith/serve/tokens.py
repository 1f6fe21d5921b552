"""vLLM's `/tokenize`, `/detokenize` and `/tokenizer_info`: what stands between a text and the model."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.serve.engine import DescribedEngine, TokenEngine
from tunesmith.serve.one_answer import OneAnswer, Steps, ask_engine
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.service import Service
from tunesmith.serve.wire_tokens import DetokenizeRequest, TokenizeRequest, read_detokenize_request, read_tokenize_request

__all__ = ["TokenizerInfo", "detokenize", "tokenize"]

_LACKING = "answers chats only"
_NO_TOKENIZER = "has no tokenizer here"


def tokenize(service: Service, *, max_body_bytes: int) -> ASGIApp:
    """The endpoint that says which tokens a text or a conversation becomes."""
    return OneAnswer(
        service,
        read=read_tokenize_request,
        kind=TokenEngine,  # type: ignore[type-abstract]
        answer=_tokenized,
        lacking=_LACKING,
        max_body_bytes=max_body_bytes,
    )


def detokenize(service: Service, *, max_body_bytes: int) -> ASGIApp:
    """The endpoint that says which text some tokens are, control tokens by their names."""
    return OneAnswer(
        service,
        read=read_detokenize_request,
        kind=DescribedEngine,  # type: ignore[type-abstract]
        answer=_detokenized,
        lacking=_NO_TOKENIZER,
        max_body_bytes=max_body_bytes,
    )


class TokenizerInfo:
    """The endpoint that describes a model's tokenizer."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Request(scope).query_params
        if strange := sorted(set(given) - {"model"}):
            raise Refusal(f"{strange[0][:64]}: unknown parameter; only `model` is known here.", code="unknown_parameter")
        await ask_engine(
            self._service,
            given.get("model", ""),
            scope,
            receive,
            send,
            kind=DescribedEngine,  # type: ignore[type-abstract]
            answer=_described,
            lacking=_NO_TOKENIZER,
        )


def _tokenized(engine: TokenEngine, request: TokenizeRequest) -> Steps:
    content = request.content
    if isinstance(content, str):
        tokens = _control_token(engine, request) or engine.encode_text(content, begun=request.begun)
    else:
        tokens = engine.encode_prompt(content)
    texts = engine.texts(tokens) if request.with_texts else None
    yield {"count": len(tokens), "max_model_len": engine.max_length, "tokens": tokens, "token_strs": texts}


def _control_token(engine: TokenEngine, request: TokenizeRequest) -> list[int]:
    """lm-eval asks for the id of a control token by tokenizing its name alone. In a longer text a name is but a text."""
    if request.begun or not isinstance(engine, DescribedEngine) or not isinstance(request.content, str):
        return []
    token = engine.control_token(request.content)
    return [] if token is None else [token]


def _detokenized(engine: DescribedEngine, request: DetokenizeRequest) -> Steps:
    if request.tokens and (largest := max(request.tokens)) >= engine.num_tokens:
        message = (
            f"tokens: there is no token {largest}; this model's vocabulary has {engine.num_tokens:,} tokens, the first is 0."
        )
        raise Refusal(message, code="invalid_value", param="tokens")
    yield {"prompt": engine.full_text(request.tokens)}


def _described(engine: DescribedEngine) -> Steps:
    yield dict(engine.tokenizer_info)
