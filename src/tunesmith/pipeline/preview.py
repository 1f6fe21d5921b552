"""One row as the model reads it: what is context, what is learned, and how much of it was cut away."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.records import Record

if TYPE_CHECKING:
    from tunesmith.train import Job

__all__ = ["Piece", "Preview", "preview_row"]


class Piece(NamedTuple):
    """A stretch of a rendered row that is learned, or is context only."""

    text: str
    is_learned: bool
    start: int
    """Of its tokens, counted from the beginning of its sequence."""
    end: int
    sequence: int
    """A long row may give more than one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A row with the stretches it becomes."""

    source: str
    """file:line."""
    pieces: tuple[Piece, ...]
    num_cut: int
    """Tokens cut away."""
    num_cut_supervised: int
    left_out: str | None = None
    """Why the row is not trained on at all, and so has no pieces; None where it is."""

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "pieces": [piece._asdict() for piece in self.pieces],
            "cut": {"tokens": self.num_cut, "supervised": self.num_cut_supervised},
            "left_out": self.left_out,
        }


def preview_row(row: Record, *, job: Job) -> Preview:
    """Encode one row as training does, and put it into words again, token for token."""
    from tunesmith.train import encode_row

    encoded = encode_row(row, job=job)
    pieces = []
    for number, sequence in enumerate(encoded.sequences):
        # A target stands one place before the token it names, and the first token of a sequence is never one.
        learned = [False, *(sequence.targets[:-1] >= 0).tolist()]
        at = 0
        for is_learned, group in groupby(learned):
            end = at + sum(1 for _ in group)
            text = job.chat.decode(sequence.tokens[at:end].tolist(), keep_control=True)
            pieces.append(Piece(text=text, is_learned=is_learned, start=at, end=end, sequence=number))
            at = end
    cut = encoded.ledger.total.truncated
    return Preview(
        source=str(row.source),
        pieces=tuple(pieces),
        num_cut=cut.tokens,
        num_cut_supervised=cut.supervised,
        left_out=encoded.dropped[0].detail if encoded.dropped else None,
    )
