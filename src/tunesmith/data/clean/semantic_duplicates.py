"""Of rows whose words mean nearly the same the first is kept. See `data.semantic` for what that can find, and what not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step, Whole
from tunesmith.data.clean_config import SemanticDuplicatesSettings
from tunesmith.records import Dropped, Record

__all__ = ["build"]


def build(settings: SemanticDuplicatesSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step."""
    threshold = (settings or SemanticDuplicatesSettings()).threshold

    def judge(rows: Sequence[Record]) -> Iterator[Outcome]:
        from tunesmith.data.leakage import comparable, said_in
        from tunesmith.data.semantic import earlier_likes

        found = earlier_likes(comparable(said_in, rows), labels=[row.label for row in rows], threshold=threshold)
        for i, like in enumerate(found):
            if like is None:
                yield None
            else:
                row = rows[i]
                detail = f"in other words the same as {rows[like.text].source} (cosine {like.cosine:.2f}), which is kept"
                yield Dropped(source=row.source, reason="semantic_duplicate", detail=detail, raw=said_in(row)[:200])

    return Whole(judge)
