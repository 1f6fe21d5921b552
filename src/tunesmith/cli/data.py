"""`tunesmith data ...`: each step of the data gate by itself, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.output import AsJson, show

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
def coverage(
    file: Annotated[Path, typer.Argument(help="Rows to train on.")],
    target: Annotated[Path, typer.Option("--target", help="10 to 50 examples of what the model will be asked.")],
    as_json: AsJson = False,
) -> None:
    """Say whether there is enough data of the target's kind, what is missing, and what to collect."""
    from tunesmith.pipeline import cover_file
    from tunesmith.terminal import coverage_screen

    found = cover_file(file, target=target)
    show(found.as_json() if as_json else coverage_screen(found), as_json=as_json)
