"""`tunesmith data ...`: each step of the data gate by itself, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, command_group, one_of, open_store, show

__all__ = ["data_app"]

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Data files, or folders of them.")]

data_app = command_group("data", "Each step of the data gate by itself: from files to files.")


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

    figures = Path(json) if json not in {None, "-"} else None
    outputs = [("--out", out), *([("--json", figures)] if figures else [])]
    found = report_on_files(files, tokens=tokens_of(tokenizer), outputs=outputs)
    found.write(html=out, json=figures)
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
    as_json: AsJson = False,
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


@data_app.command(name="split")
def split_rows(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files of rows.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of train.jsonl, validation.jsonl and test.jsonl.")],
    validation: Annotated[float, typer.Option(help="Share of rows held out to choose the best step.", min=0.0, max=1.0)] = 0.1,
    test: Annotated[float, typer.Option(help="Share of rows held out for the report.", min=0.0, max=1.0)] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the order in which clusters are dealt.", min=0)] = 0,
    group_by: Annotated[str | None, typer.Option(metavar="KEY", help="Rows with one value of this key stay together.")] = None,
    near_duplicates: Annotated[
        float, typer.Option(help="Jaccard similarity from which rows stay together; 0: not looked for.", min=0.0, max=1.0)
    ] = 0.7,
    compare: Annotated[str, typer.Option(help="questions, or rows: answers count too.")] = "questions",
    layout: Annotated[str, typer.Option("--format", help="Layout of the rows; auto looks at them.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Divide rows into train, validation and test so that no test row nearly repeats a training row."""
    from tunesmith.data.config import Compared, FormatName, SourceConfig, SplitConfig
    from tunesmith.data.splitting import split_files
    from tunesmith.errors import UserError
    from tunesmith.terminal import split_screen

    if validation + test >= 1:
        raise UserError(f"--validation and --test take {validation + test:g} of the rows; together they must be below 1")
    config = SplitConfig(
        validation=validation,
        test=test,
        near_duplicates=near_duplicates or None,
        compare=one_of(compare, Compared, option="--compare"),
    )
    known = one_of(layout, FormatName, option="--format")
    sources = [SourceConfig(path=file, format=known, group_by=group_by) for file in files]
    done = split_files(sources, out=out, config=config, seed=seed)
    show(done.as_json() if as_json else split_screen(done), as_json=as_json)


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
