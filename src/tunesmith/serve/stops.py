"""Stop strings: the answer ends where one is completed, and no part of it is ever shown."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from tunesmith.serve.engine import Piece, TokenLogprob, Wait

__all__ = ["cut_at_stops"]


def cut_at_stops(pieces: Iterator[Piece | Wait], *, stops: Sequence[str]) -> Generator[Piece | Wait, None, None]:
    """Pass pieces on until a stop string is complete. How the text is cut into pieces does not change the answer.

    Text that may be the beginning of a stop string is held back until that is decided. Where several match, the one that is
    complete first counts, and of those the longest. What is told of a token comes with its first shown letter, and of one that is cut away
    nothing is told. Closing this closes `pieces`.

    Raises:
        RuntimeError: `pieces` ended without a finish reason, so nobody knows whether the answer is whole.
    """
    held, waiting = "", list[tuple[int, TokenLogprob]]()
    try:
        for piece in pieces:
            if isinstance(piece, Wait):
                yield piece
                continue
            waiting += [(len(held) + _num_before(one.token, piece.text), one) for one in piece.logprobs]
            text = held + piece.text
            end = _first_stop(text, stops)
            if end is not None:
                told = tuple(one for place, one in waiting if place < end)
                yield piece._replace(text=text[:end], finish_reason="stop", logprobs=told)
                return
            shown = len(text) - (0 if piece.finish_reason else _num_held(text, stops))
            told = tuple(one for place, one in waiting if place < shown or piece.finish_reason)
            waiting = [(place - shown, one) for place, one in waiting[len(told) :]]
            held = text[shown:]
            yield piece._replace(text=text[:shown], logprobs=told)
            if piece.finish_reason:
                return
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    raise RuntimeError("the engine ended its answer without a finish reason")


def _num_before(token: str, text: str) -> int:
    """Letters of a piece that stand before its token: the sign of a character that was never completed."""
    return len(text) - len(token) if token and text.endswith("\ufffd" + token) else 0


def _first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop string begins that is complete first."""
    found = [(start + len(stop), start) for stop in stops if (start := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def _num_held(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` with which a stop string begins."""
    longest = max(map(len, stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
