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


@data_app.command()
def annotate(
    files: Files,
    out: Annotated[Path, typer.Option("--out", metavar="ANNOTATIONS.jsonl", help="Every decision is appended to it at once.")],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who annotates; can be changed on the page.")] = "me",
    labels: Annotated[str, typer.Option("--labels", metavar="A,B", help="At most nine. Default: those of the rows.")] = "",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the page's address.")] = False,
    import_from: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Take over a Label Studio export, and end.")
    ] = None,
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option("--export", metavar="FORMAT FILE", help="Write what was decided, and end: rows or label-studio."),
    ] = None,
) -> None:
    """Label rows, correct answers and rank pairs on a page of this machine, most useful rows first."""
    from tunesmith.pipeline import annotating
    from tunesmith.terminal import annotating_lines, open_page

    if import_from is not None:
        imported = annotating.import_annotations(files, out=out, source=import_from)
        summary = f"{imported.num_decisions:,} decisions taken over, {imported.num_present:,} were there"
        typer.echo(annotating_lines(summary, imported.dropped))
    if export is not None:
        form, target = export
        exported = annotating.export_annotations(files, out=out, to=target, form=form)
        typer.echo(annotating_lines(f"{exported.num_rows:,} rows written to {target}", exported.dropped))
    if import_from is None and export is None:
        wanted = labels.split(",") if labels else ()
        annotating.annotate(files, out=out, by=by, labels=wanted, port=port, on_ready=open_page(no_browser=no_browser))


@data_app.command()
def agreement(
    file: Annotated[Path, typer.Argument(metavar="ANNOTATIONS.jsonl", help="What `data annotate` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say how far annotators agree beyond chance: Cohen's and Fleiss' kappa, Krippendorff's alpha."""
    import orjson

    from tunesmith.pipeline.annotating import read_agreement
    from tunesmith.terminal import agreement_screen

    found = read_agreement(file)
    if as_json:
        typer.echo(orjson.dumps({kind: one.as_json() for kind, one in found.items()}, option=orjson.OPT_INDENT_2))
    else:
        typer.echo(agreement_screen(found))
