"""Of rows that say nearly the same the first is kept; rows with another label or under another system prompt are another matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step, Whole
from tunesmith.data.clean_config import NearDuplicatesSettings
from tunesmith.records import Dropped, Record, Role

__all__ = ["build"]


def build(settings: NearDuplicatesSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step."""
    threshold = (settings or NearDuplicatesSettings()).threshold

    def judge(rows: Sequence[Record]) -> Iterator[Outcome]:
        import numpy as np

        from tunesmith.data.leakage import comparable, said_in
        from tunesmith.data.near import cluster, sketch

        clusters = cluster(sketch(comparable(said_in, rows), threshold=threshold))
        is_tied = np.bincount(clusters.first, minlength=1)[clusters.first] > 1
        kept: dict[tuple[int, str | None, int], int] = {}
        for i in range(len(rows)):
            row = rows[i] if is_tied[i] else None
            first = kept.setdefault((int(clusters.first[i]), row.label, _told(row)), i) if row else i
            if row is None or first == i:
                yield None
                continue
            like = int(clusters.like[i])
            alike = f"nearly the same as {rows[like].source} (Jaccard {clusters.likeness[i]:.2f})"
            rest = "which is kept" if like == first else f"and through it as {rows[first].source}, which is kept"
            yield Dropped(source=row.source, reason="near_duplicate", detail=f"{alike}, {rest}", raw=said_in(row)[:200])

    return Whole(judge)


def _told(row: Record) -> int:
    """Hash of the system prompt: documents that many rows ask about are not compared, and still are not one."""
    return hash(tuple(message.content for message in row.messages if message.role is Role.SYSTEM))
