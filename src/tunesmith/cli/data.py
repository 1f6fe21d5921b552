"""`tunesmith data ...`: each step of the data gate by itself, from files to files."""

from __future__ import annotations

import typer

__all__ = ["data_app"]

data_app = typer.Typer(
    name="data",
    help="Each step of the data gate by itself: from files to files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
