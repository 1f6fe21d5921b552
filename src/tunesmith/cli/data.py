"""`tunesmith data ...`: each step of the data gate by itself, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, one_of, open_store, show

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
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files of rows, each a file, folder, pattern or URL.")],
    layout: Annotated[str, typer.Option("--format", help="Layout of the rows; auto looks at them.")] = "auto",
    guide: Annotated[str | None, typer.Option("--for", help="openai or mistral: what it refuses is an error too.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", "--tokenizer", help="Count tokens as this base or tokenizer folder does.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tell rows of more tokens than this.", min=1)] = 4096,
    max_bad_share: Annotated[float, typer.Option(help="Share of bad rows from which the gate refuses.", min=0.0, max=1.0)] = 0.01,
    fix: Annotated[Path | None, typer.Option("--fix", metavar="OUT", help="Write a corrected copy.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every finding, not the first hundred of each kind.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Find every error in files of rows, each with its place and mend, and write a corrected copy."""
    from tunesmith.data.config import FormatName
    from tunesmith.data.validation import GuideName, Rules
    from tunesmith.errors import GateRefused
    from tunesmith.pipeline import validate_files
    from tunesmith.terminal import validation_screen, watching

    rules = Rules(
        layout=one_of(layout, FormatName, option="--format"),
        guide=one_of(guide, GuideName, option="--for"),
        max_tokens=max_tokens,
        max_bad_share=max_bad_share,
        keeps_all=everything,
    )
    with watching(is_quiet=as_json) as watcher:
        found = validate_files(files, rules=rules, store=open_store(workspace), base=base, fix=fix, watcher=watcher)
    show(found.as_json() if as_json else validation_screen(found), as_json=as_json)
    if not found.passes:
        raise GateRefused(found.refusal)


@data_app.command(name="read")
def read_files(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, folders, patterns, URLs or hf://owner/name.")],
    out: Annotated[Path, typer.Option("--out", metavar="ROWS", help="The file of rows to write, JSON lines.")],
    dropped: Annotated[
        Path | None, typer.Option("--dropped", metavar="DROPPED", help="Where rows go that cannot be used. Default: beside ROWS.")
    ] = None,
    layout: Annotated[str, typer.Option("--format", help="Layout of the rows; auto looks at them.")] = "auto",
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
    from tunesmith.data.config import FormatName
    from tunesmith.terminal import collected_screen

    known = one_of(layout, FormatName, option="--format")
    found = collect(sources_of(files, layout=known, names=names or (), encoding=encoding), out=out, dropped=dropped)
    show(found.as_json() if as_json else collected_screen(found), as_json=as_json)
