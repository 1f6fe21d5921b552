"""`tunesmith data ...`: each step of the data gate by itself, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Data files, or folders of them.")]


@data_app.command()
def report(
    files: Files,
    out: Annotated[Path, typer.Option("--out", metavar="REPORT.html", help="The page, which needs nothing else.")],
    json: Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="The same figures as JSON; - prints them.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="FOLDER", help="Whose tokens are counted. Default: the embedded base's.")
    ] = None,
) -> None:
    """Show what data is like: counts, lengths, languages, duplicates, what was dropped and why, splits, as one page."""
    import orjson

    from tunesmith.pipeline.data_report import report_on_files, tokens_of

    found = report_on_files(files, tokens=tokens_of(tokenizer))
    found.write(html=out, json=Path(json) if json not in {None, "-"} else None)
    if json == "-":
        typer.echo(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2))
    else:
        typer.echo("\n".join(f"{section.name:<16} {section.summary}" for section in found.sections))
    typer.echo(f"report   {out}", err=True)
