"""The command line: each command parses, makes one call of the library, and prints.

Results go to stdout, progress to stderr. Heavy libraries are loaded inside the commands, so `--help` answers at once.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tunesmith import __version__
from tunesmith.cli.base import base_app
from tunesmith.cli.bridges import hub_app, mlflow_app, wandb_app
from tunesmith.cli.common import AsJson, Workspace, command_group, open_store, show
from tunesmith.cli.data import data_app
from tunesmith.cli.evaluation import compare, evaluate, judge, score
from tunesmith.cli.exporting import export
from tunesmith.cli.jobs import jobs_app
from tunesmith.cli.keys import keys_app
from tunesmith.cli.registry import delete, gc, history, lineage, promote, rollback, unalias
from tunesmith.cli.requests import requests_app
from tunesmith.cli.serving import serve
from tunesmith.cli.talking import chat
from tunesmith.cli.versions import card, models_app, reproduce
from tunesmith.pipeline.trackers import TrackerName

__all__ = ["app"]

app = command_group("tunesmith", "From a pile of your own data to a fine-tuned language model, with a proof for every claim.")
app.add_typer(data_app)
app.add_typer(base_app)
app.add_typer(mlflow_app)
app.add_typer(wandb_app)
app.add_typer(hub_app)
app.command()(chat)
app.add_typer(jobs_app)
app.add_typer(requests_app)
app.command()(score)
app.command()(evaluate)
app.command()(compare)
app.command()(judge)
app.command()(export)
app.add_typer(models_app)
app.command()(card)
app.command()(reproduce)
app.command()(promote)
app.command()(rollback)
app.command()(history)
app.command()(lineage)
app.command()(unalias)
app.command()(delete)
app.command()(gc)
app.command()(serve)
app.add_typer(keys_app)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML), or a folder that holds recipe.yaml.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: train.epochs=2.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to put it; made if need be.")] = Path(),
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="PATH", help="Your own file, folder or pattern: writes a recipe for it. May be given again."
        ),
    ] = None,
) -> None:
    """Start a project: a recipe for your own data, or, without any, a whole example to change into your own."""
    from tunesmith.pipeline.starter import model_name, start_from_data, start_project

    if data:
        proposal = start_from_data(folder, data)
        typer.echo(folder / "recipe.yaml")
        for told in (*proposal.found, proposal.summary):
            typer.echo(f"data     {told}", err=True)
    else:
        for file in start_project(folder):
            typer.echo(file)
    given = shlex.quote(str(folder))
    typer.echo(f"model    {model_name(folder)}, after the folder; its recipe can call it otherwise", err=True)
    typer.echo(f"next     tunesmith check {given}       tunesmith run {given}", err=True)


@app.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    num_shown: Annotated[int, typer.Option("--show", metavar="N", help="Rows to show as the model reads them.", min=1)] = 1,
    with_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Train on 25, 50 and 100 % of the rows: would more data help?")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Say what will be trained on, how long it takes and what it needs, before anything trains."""
    from tunesmith.pipeline import check as check_recipe
    from tunesmith.pipeline import load_recipe
    from tunesmith.terminal import checked_screen, watching

    with watching(is_quiet=as_json) as watcher:
        loaded = load_recipe(recipe, overrides=overrides or ())
        store = open_store(workspace)
        checked = check_recipe(loaded, store=store, watcher=watcher, num_shown=num_shown, with_curve=with_curve)
    show(checked.as_json() if as_json else checked_screen(checked, recipe=recipe), as_json=as_json)


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    log_to: Annotated[
        list[TrackerName] | None, typer.Option("--log-to", help="Tell a tracker too; may be given more than once.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Do the whole job: data, training, evaluation, a registered version. Run again, it goes on where it stopped."""
    from tunesmith.pipeline import load_recipe
    from tunesmith.pipeline import run as run_recipe
    from tunesmith.terminal import finished_as_json, finished_screen, watching

    store = open_store(workspace)
    with watching(is_quiet=as_json) as watcher:
        finished = run_recipe(load_recipe(recipe, overrides=overrides or ()), store=store, watcher=watcher, log_to=log_to or ())
    folder = store.artefacts.root / finished.version.artefact
    show(finished_as_json(finished, folder=folder) if as_json else finished_screen(finished, store=store), as_json=as_json)


@app.command()
def prove(
    model: Annotated[str, typer.Argument(help="A version such as boutique@1, a name, tunesmith/base, or a model's folder.")],
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Compile the layers and compare, also where training did not; takes a minute.")
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Hold a running server to the version: vLLM, Ollama, llama.cpp's, SGLang, ours."),
    ] = None,
    served_as: Annotated[str | None, typer.Option("--model", metavar="NAME", help="The model's name at the endpoint.")] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="TUNESMITH_ENDPOINT_KEY", help="The endpoint's key.", show_envvar=True)
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Try every claim about a model on this machine, and print the sheet. A version's sheet is stored with it."""
    from tunesmith.errors import GateRefused, UserError
    from tunesmith.pipeline import prove as prove_model
    from tunesmith.pipeline import prove_endpoint
    from tunesmith.terminal import sheet_screen, watching

    if endpoint is None and served_as is not None:
        raise UserError("--model is the name at an endpoint, and goes with --endpoint URL")
    if endpoint is not None and compiled:
        raise UserError("--compiled is about this machine, and --endpoint about another's server; give one of them")
    store = open_store(workspace)
    with watching(is_quiet=as_json) as watcher:
        if endpoint is None:
            sheet = prove_model(model, store=store, watcher=watcher, compiled=compiled)
        else:
            sheet = prove_endpoint(model, url=endpoint, model=served_as, api_key=api_key, store=store, watcher=watcher)
    show(sheet.as_json() if as_json else sheet_screen(sheet), as_json=as_json)
    if not sheet.holds:
        raise GateRefused(f"{sheet.subject}: {sheet.summary}; {sheet.objection}")


@app.command()
def curve(
    model: Annotated[str, typer.Argument(help="A name (its champion's curve), or a version such as boutique@1.")],
    as_chart: Annotated[
        bool | None, typer.Option("--chart/--table", help="Default: a chart in a terminal, a table in a pipe.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show how a version was trained: its losses, step by step."""
    from tunesmith.pipeline import read_curve
    from tunesmith.terminal import curve_screen

    found = read_curve(model, store=open_store(workspace))
    show(found.as_json() if as_json else curve_screen(found, as_chart=as_chart), as_json=as_json)


@app.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Move broken artefacts to quarantine and clear leftovers.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Hash everything stored again, and say what is broken."""
    from tunesmith.store import examine
    from tunesmith.terminal import diagnosis_screen

    diagnosis = examine(open_store(workspace), repair=repair)
    show(asdict(diagnosis) | {"sound": diagnosis.sound} if as_json else diagnosis_screen(diagnosis), as_json=as_json)
    raise typer.Exit(0 if diagnosis.sound else 1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from tunesmith.pipeline import json_schema

    show(json_schema(), as_json=True)


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    show({"version": __version__} if as_json else f"tunesmith {__version__}", as_json=as_json)
