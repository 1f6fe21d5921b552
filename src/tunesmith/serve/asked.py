"""A chat on the engine's thread: its answers in turns, and what is recorded of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

from tunesmith.records import Interaction
from tunesmith.serve.engine import Engine, Piece, Wait
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.stops import cut_at_stops
from tunesmith.serve.turns import in_turns
from tunesmith.serve.wire import ChatRequest

__all__ = ["Ask", "answer_chat"]

_LOG = logging.getLogger("tunesmith.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One accepted request on its way to an engine."""

    id: str
    deployment: str
    """The name under which the engine is served."""
    request: ChatRequest
    received: float
    """`time.monotonic()` when its first byte was read."""
    shadow_of: str | None = None
    """The id of the request that this is a copy of."""


def answer_chat(
    ask: Ask, engine: Engine, is_abandoned: Callable[[], bool], *, on_interaction: Callable[[Interaction], None] | None
) -> Generator[int | Piece | Wait, None, None]:
    """The events of a chat."""
    request = ask.request
    num_prompt_tokens = engine.count_prompt(request.messages)
    _check_length(num_prompt_tokens, max_length=engine.max_length)
    yield num_prompt_tokens
    answers = [_pieces(ask, index, engine) for index in range(request.num_answers)]

    def tell(interaction: Interaction) -> None:
        if on_interaction is not None and not is_abandoned():
            _hand_over(interaction, on_interaction)

    recorded = [_recorded(ask, index, answer, engine.ref, num_prompt_tokens, tell) for index, answer in enumerate(answers)]
    with closing(in_turns(recorded)) as events:
        for event in events:
            told = event.num_prompt_tokens if isinstance(event, Piece) else None
            if told is not None and told != num_prompt_tokens:
                num_prompt_tokens = told
                yield told
            yield event


def _pieces(ask: Ask, index: int, engine: Engine) -> Generator[Piece | Wait, None, None]:
    """One of the answers."""
    request = ask.request
    params = replace(request.params, row=index)
    with closing(cut_at_stops(engine.stream(request.messages, params), stops=request.stop)) as cut:
        for piece in cut:
            yield piece if isinstance(piece, Wait) else piece._replace(answer=index)


def _recorded(
    ask: Ask,
    index: int,
    pieces: Generator[Piece | Wait, None, None],
    ref: str,
    num_prompt_tokens: int,
    tell: Callable[[Interaction], None],
) -> Generator[Piece | Wait, None, None]:
    """The same pieces; the whole answer is handed over before the client sees its end, so that feedback on it always finds it."""
    texts: list[str] = []
    num_tokens = 0
    first_token_ms = 0.0
    with closing(pieces):
        for piece in pieces:
            if not isinstance(piece, Wait):
                first_token_ms = first_token_ms or _elapsed_ms(ask)
                texts.append(piece.text)
                num_tokens += piece.num_tokens
                if piece.finish_reason:
                    interaction = Interaction(
                        id=f"{ask.id}-{index}" if index else ask.id,
                        deployment=ask.deployment,
                        arm=ref,
                        messages=ask.request.messages,
                        answer="".join(texts),
                        num_prompt_tokens=piece.num_prompt_tokens or num_prompt_tokens,
                        num_completion_tokens=num_tokens,
                        first_token_ms=first_token_ms,
                        total_ms=_elapsed_ms(ask),
                        finish_reason=piece.finish_reason,
                        user=ask.request.user,
                        shadow_of=ask.shadow_of,
                    )
                    tell(interaction)
            yield piece


def _elapsed_ms(ask: Ask) -> float:
    return (time.monotonic() - ask.received) * 1000


def _check_length(num_prompt_tokens: int, *, max_length: int) -> None:
    if num_prompt_tokens >= max_length:
        raise Refusal(
            f"The messages have {num_prompt_tokens:,} tokens; this model's context holds {max_length:,}, the answer included.",
            code="context_length_exceeded",
            param="messages",
        )


def _hand_over(interaction: Interaction, on_interaction: Callable[[Interaction], None]) -> None:
    try:
        on_interaction(interaction)
    except Exception:
        _LOG.exception("answer %s could not be recorded", interaction.id)
