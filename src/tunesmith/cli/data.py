"""`tunesmith data ...`: each step of the data gate by itself, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, show
from tunesmith.data.config import FormatName

__all__ = ["data_app"]

data_app = typer.Typer(
    name="data",
    help="Each step of the data gate by itself: from files to files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@data_app.command(name="read")
def read_files(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, folders, patterns, URLs or hf://owner/name.")],
    out: Annotated[Path, typer.Option("--out", metavar="ROWS", help="The file of rows to write, JSON lines.")],
    dropped: Annotated[
        Path | None, typer.Option("--dropped", metavar="DROPPED", help="Where rows go that cannot be used. Default: beside ROWS.")
    ] = None,
    layout: Annotated[FormatName, typer.Option("--format", help="Layout of the rows; auto looks at them.")] = "auto",
    names: Annotated[
        list[str] | None, typer.Option("--map", metavar="NAME=KEY", help="Which key is which: question=q. May be given often.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Of text files; left out, it is told from the bytes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read files of any known kind and layout into one file of rows, and say what was found."""
    from tunesmith.data.collect import collect, sources_of
    from tunesmith.terminal import collected_screen

    found = collect(sources_of(files, layout=layout, names=names or (), encoding=encoding), out=out, dropped=dropped)
    show(found.as_json() if as_json else collected_screen(found), as_json=as_json)
