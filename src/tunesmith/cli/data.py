"""`tunesmith data ...`: each step of the data gate by itself, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, one_of, show

__all__ = ["data_app"]

data_app = typer.Typer(
    name="data",
    help="Each step of the data gate by itself: from files to files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@data_app.command()
def clean(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files of rows.")],
    steps: Annotated[str, typer.Option(help="As in a recipe: unicode,pii or {pii: {types: [email]}}.")],
    out: Annotated[Path, typer.Option(help="Where the rows that are kept go.")],
    dropped: Annotated[Path | None, typer.Option(help="Where the others go. Default: beside --out.")] = None,
    changes: Annotated[Path | None, typer.Option(help="Where rows go as they were before a step changed them.")] = None,
    layout: Annotated[str, typer.Option("--format", help="Layout of the rows; auto looks at them.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Clean files of rows, step by step, and account for every row."""
    from tunesmith.data.config import FormatName
    from tunesmith.pipeline import clean_rows
    from tunesmith.terminal import cleaned_screen, watching

    known = one_of(layout, FormatName, option="--format")
    with watching(is_quiet=as_json) as watcher:
        cleaned = clean_rows(files, steps=steps, out=out, dropped=dropped, changes=changes, layout=known, watcher=watcher)
    show(cleaned.as_json() if as_json else cleaned_screen(cleaned), as_json=as_json)
