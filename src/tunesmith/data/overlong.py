"""What becomes of a token sequence that is longer than a model may read: cut on one side, or divided.

Whatever the policy, a token that is learned is learned once: where a further sequence begins with tokens of the one before, those
are context only, and counted as repeated.
"""

from __future__ import annotations

from typing import NamedTuple

from tunesmith.data.chat import Rendered
from tunesmith.data.config import Overlong

__all__ = ["Fitted", "fit", "fit_text"]

_OVERLAP = 4
"""A further sequence of a divided conversation begins with a quarter of its length as context."""


class Fitted(NamedTuple):
    """The sequences to train on, none too long, and how many of their tokens stand in an earlier one as well."""

    sequences: list[Rendered]
    num_repeated: int


def fit(rendered: Rendered, *, max_length: int, overlong: Overlong, bos: int | None = None) -> Fitted:
    """Make a conversation fit. Sequences without a supervised token are left out.

    Args:
        rendered: a whole conversation.
        max_length: tokens in a sequence at most.
        overlong: `error` cuts like `right`: whether it may is decided over all rows.
        bos: a token with which, where the conversation begins with it, whatever is left of it begins as well.
    """
    tokens, weights = rendered
    if len(tokens) <= max_length:
        return _learned([rendered])
    if overlong == "drop":
        return Fitted([], 0)
    head = tokens[:1] if bos is not None and tokens[0] == bos and max_length > 2 else ()
    room = max_length - len(head)
    if overlong == "left":
        return _learned([Rendered(head + tokens[-room:], tuple(0.0 for _ in head) + weights[-room:])])
    if overlong != "split":
        return _learned([Rendered(tokens[:max_length], weights[:max_length])])
    return _divided(rendered, head=head, max_length=max_length)


def _divided(rendered: Rendered, *, head: tuple[int, ...], max_length: int) -> Fitted:
    """Sequences that overlap, of which each learns what no other does; where nothing would be learned there is none."""
    tokens, weights = rendered
    sequences, num_repeated, read = [], 0, 0
    start, done, end = 0, 1, max_length
    while done < len(tokens):
        opening = head if start else ()
        if any(weights[done:end]):
            blank = (0.0,) * (len(opening) + done - start)
            sequences.append(Rendered(opening + tokens[start:end], blank + weights[done:end]))
            num_repeated += max(read - start, 0) + (len(opening) if read else 0)
            read = end
        room = max_length - len(head)
        start, done, end = end - max(room // _OVERLAP, 1), end, min(end + room - max(room // _OVERLAP, 1), len(tokens))
    return Fitted(sequences, num_repeated)


def fit_text(rendered: Rendered, *, max_length: int) -> Fitted:
    """Divide a plain text into consecutive sequences, each beginning with the last token of the one before.

    So every token but the first is predicted exactly once. A text of one token gives none: it predicts nothing.
    """
    tokens, weights = rendered
    starts = range(0, len(tokens) - 1, max_length - 1)
    chunks = [Rendered(tokens[at : at + max_length], weights[at : at + max_length]) for at in starts]
    return Fitted(chunks, max(len(chunks) - 1, 0))


def _learned(sequences: list[Rendered]) -> Fitted:
    return Fitted([one for one in sequences if any(one.weights[1:])], 0)
