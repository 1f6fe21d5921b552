"""Of rows whose words mean nearly the same the first is kept. See `data.semantic` for what that can find, and what not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step
from tunesmith.data.clean_config import SemanticDuplicatesSettings
from tunesmith.records import Dropped, Record

__all__ = ["build"]


def build(settings: SemanticDuplicatesSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step."""
    threshold = (settings or SemanticDuplicatesSettings()).threshold

    def step(records: Iterable[Record]) -> Iterator[Outcome]:
        from tunesmith.data.leakage import said_in
        from tunesmith.data.semantic import earlier_likes

        rows = list(records)
        found = earlier_likes(list(map(said_in, rows)), labels=[row.label for row in rows], threshold=threshold)
        for row, like in zip(rows, found, strict=True):
            if like is None:
                yield row
            else:
                detail = f"in other words the same as {rows[like.text].source} (cosine {like.cosine:.2f}), which is kept"
                yield Dropped(source=row.source, reason="semantic_duplicate", detail=detail, raw=said_in(row)[:200])

    return step
