"""`data clean`: the steps as they are written in a recipe, and the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict

from tunesmith.data.clean_config import CleanStep, StepName
from tunesmith.data.clean_files import CleanedFiles, clean_files
from tunesmith.data.config import FormatName
from tunesmith.errors import UserError
from tunesmith.pipeline.configuration import read_config
from tunesmith.pipeline.progress import Silent, Watcher

__all__ = ["clean_rows"]


class _Steps(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[StepName | CleanStep, ...]


def clean_rows(
    paths: Sequence[str],
    *,
    steps: str,
    out: Path,
    dropped: Path | None = None,
    changes: Path | None = None,
    layout: FormatName = "auto",
    watcher: Watcher | None = None,
) -> CleanedFiles:
    """Clean files of rows.

    Args:
        paths: files, folders or patterns.
        steps: as in a recipe, without the brackets: `unicode, pii` or `{pii: {types: [email]}}`.
        out: where the rows that are kept go.
        dropped: where the others go. None: beside `out`.
        changes: where rows go as they were before they were changed. None: nowhere.
        layout: of the rows.
        watcher: told how far it is.

    Raises:
        UserError: a step or a file cannot be used.
    """
    if not steps.strip():
        raise UserError(f"--steps is empty. Name steps, in their order: {', '.join(get_args(StepName))}")
    watch = watcher or Silent()
    config = read_config(f"steps: [{steps}]", model=_Steps, source="--steps")
    return clean_files(
        paths,
        steps=config.steps,
        out=out,
        dropped=dropped,
        changes=changes,
        layout=layout,
        on_progress=lambda what, done: watch.progress(what, done=done, total=None),
    )
