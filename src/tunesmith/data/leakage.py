"""What leaks from training rows into held-out ones: rows that ask nearly the same, tied together before a split and counted after it.

Two rows are compared by what they ask: a text as a whole, a conversation by its user's messages. Answers are left out on purpose.
Where one answer serves many questions (a shop's opening hours), they would tie every wording of a question to one side, and the
test would ask only for what was never taught. `compare: rows` ties rows by all that they say as well.

What many rows share word for word, such as an instruction or a system prompt, is left out too (`frames`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tunesmith.data.config import SplitConfig
from tunesmith.data.frames import contents, frames_of
from tunesmith.data.near import Sketch, cluster, copies, sketch
from tunesmith.data.shelf import Joined, Mapped
from tunesmith.records import Leakage, Record, Role

__all__ = ["SketchedRows", "asked_of", "comparable", "measure", "said_in", "sketch_rows", "tie"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchedRows:
    """Rows ready to be compared: one or two texts of each, all first ones before all second ones."""

    num_rows: int
    sketch: Sketch


def asked_of(record: Record, *, frames: Collection[int] | None = None) -> str:
    """What a row asks: its text, or the user's messages without its source's instruction; all messages where no user speaks.

    Args:
        record: the row.
        frames: what many rows share, which is left out too (`data.frames`). What a system message says beyond it then counts as
            asked: it is what the row is about.
    """
    if record.text is not None:
        return record.text
    said = list(contents(record, frames=frames or ()))
    if all(role is not Role.USER for role, _ in said):
        return said_in(record, frames=frames or ())
    roles = {Role.USER} if frames is None else {Role.USER, Role.SYSTEM}
    return "\n".join(content for role, content in said if role in roles)


def said_in(record: Record, *, frames: Collection[int] = ()) -> str:
    """All that a row says, without what is left out of `asked_of`."""
    return record.text if record.text is not None else "\n".join(content for _, content in contents(record, frames=frames))


def comparable(function: Callable[..., str], records: Sequence[Record]) -> Sequence[str]:
    """What rows ask or say (`asked_of`, `said_in`), without what many of them share word for word."""
    return Mapped(partial(function, frames=frames_of(records)), records)


def sketch_rows(
    records: Sequence[Record], *, config: SplitConfig, likeness: float, frames: Collection[int] | None = None
) -> SketchedRows:
    """Make rows comparable from a Jaccard similarity on; frames are looked for where they are not given."""
    frames = frames_of(records) if frames is None else frames
    texts: Sequence[str] = Mapped(partial(asked_of, frames=frames), records)
    if config.compare == "rows":
        texts = Joined(texts, Mapped(partial(said_in, frames=frames), records))
    return SketchedRows(num_rows=len(records), sketch=sketch(texts, threshold=likeness))


def tie(rows: SketchedRows, labels: Sequence[int]) -> list[int]:
    """Join components of rows that hold near-duplicates.

    Args:
        rows: the rows.
        labels: for each row a number below the number of rows; equal ones are in one component already.

    Returns:
        Such numbers for the joined components.
    """
    near = cluster(rows.sketch).first
    held = np.tile(np.asarray(labels, np.intp), len(near) // max(rows.num_rows, 1))
    size = rows.num_rows + len(near)
    graph = coo_array((np.ones(len(near), np.int8), (held, rows.num_rows + near)), (size, size))
    joined = connected_components(graph, directed=False)[1][held[: rows.num_rows]]
    numbers: list[int] = np.unique(joined, return_inverse=True)[1].tolist()
    return numbers


def measure(rows: SketchedRows, home: Sequence[int], *, held_out: int, seed: int) -> Leakage:
    """Count held-out rows that have a near-duplicate among the training rows, as split and as a random split would have it.

    Args:
        rows: the rows.
        home: for each row its split; 0 is the training rows.
        held_out: the split that is asked about.
        seed: of the random split, which has as many rows in each part.
    """
    homes = np.asarray(home)
    shuffled = np.random.default_rng(seed).permutation(homes)
    return Leakage(
        likeness=rows.sketch.threshold,
        num_rows=int((homes == held_out).sum()),
        num_random=_num_leaked(rows, shuffled, held_out=held_out),
        num_left=_num_leaked(rows, homes, held_out=held_out),
    )


def _num_leaked(rows: SketchedRows, home: NDArray[np.intp], *, held_out: int) -> int:
    homes = np.tile(home, len(rows.sketch.at) // max(rows.num_rows, 1))
    found = copies(rows.sketch, rows=homes == held_out, among=homes == 0) >= 0
    return int(found.reshape(-1, rows.num_rows).any(axis=0).sum())
