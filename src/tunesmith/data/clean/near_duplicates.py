"""Of rows that say nearly the same the first is kept; rows with another label are another matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step
from tunesmith.data.clean_config import NearDuplicatesSettings
from tunesmith.records import Dropped, Record

__all__ = ["build"]


def build(settings: NearDuplicatesSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step."""
    threshold = (settings or NearDuplicatesSettings()).threshold

    def step(records: Iterable[Record]) -> Iterator[Outcome]:
        from tunesmith.data.leakage import said_in
        from tunesmith.data.near import cluster, sketch

        rows = list(records)
        clusters = cluster(sketch(list(map(said_in, rows)), threshold=threshold))
        kept: dict[tuple[int, str | None], int] = {}
        for i, row in enumerate(rows):
            first = kept.setdefault((int(clusters.first[i]), row.label), i)
            if first == i:
                yield row
                continue
            like = rows[int(clusters.like[i])]
            alike = f"nearly the same as {like.source} (Jaccard {clusters.likeness[i]:.2f})"
            rest = "which is kept" if like is rows[first] else f"and through it as {rows[first].source}, which is kept"
            yield Dropped(source=row.source, reason="near_duplicate", detail=f"{alike}, {rest}", raw=said_in(row)[:200])

    return step
