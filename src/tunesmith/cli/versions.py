"""The commands that explain versions: list, show, compare what is stored of them, describe them on a card, train them again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.common import AsJson, Workspace, command_group, open_store, show

if TYPE_CHECKING:
    from tunesmith.records import ModelVersion
    from tunesmith.store import Store

__all__ = ["card", "models_app", "reproduce"]

models_app = command_group(
    "models", "List the registered versions, newest last; show one, or what is different between two.", runs_alone=True
)
Version = Annotated[str, typer.Argument(metavar="REF", help="A version such as boutique@1, or a name (its champion).")]


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List the registered versions, newest last; show one, or what is different between two."""
    if context.invoked_subcommand is not None:
        if workspace is not None or as_json:
            from tunesmith.errors import UserError

            raise UserError(f"put --workspace and --json behind `models {context.invoked_subcommand}`")
        return
    from tunesmith.terminal import models_screen

    store = open_store(workspace)
    listed = [(version, _aliases(version, store=store)) for version in store.ledger.versions()]
    content = [_plain(version, aliases=aliases, store=store) for version, aliases in listed] if as_json else models_screen(listed)
    show(content, as_json=as_json)


@models_app.command("show")
def show_version(model: Version, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show one version: what it is made of, how good it is, and what is proved of it."""
    from tunesmith.pipeline.version_facts import facts_of
    from tunesmith.terminal.versions_screen import shown_screen

    store = open_store(workspace)
    version = store.ledger.version(model)
    facts = facts_of(version, store=store)
    aliases = _aliases(version, store=store)
    content = _plain(version, aliases=aliases, store=store) | facts.as_json() if as_json else shown_screen(facts, aliases=aliases)
    show(content, as_json=as_json)


@models_app.command("diff")
def diff_versions(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A version such as boutique@6.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The one of which is told what it has and the first has not.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Say what is different between two versions: rows, recipe, code and machine, figures, proofs."""
    from tunesmith.pipeline.version_diff import diff_versions as compare_stored
    from tunesmith.terminal.versions_screen import diff_screen

    found = compare_stored(first, second, store=open_store(workspace))
    show(found.as_json() if as_json else diff_screen(found), as_json=as_json)


def card(
    model: Version,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where it goes. Default: printed.")] = None,
    workspace: Workspace = None,
) -> None:
    """Write a version's model card: a README.md in the hub's format, each claim with its stored figure."""
    from tunesmith.pipeline.card import version_card, write_card

    store = open_store(workspace)
    version = store.ledger.version(model)
    if out is None:
        typer.echo(version_card(version, store), nl=False)
        return
    write_card(version, store=store, out=out)
    typer.echo(out)


def reproduce(model: Version, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Train a version again from what is stored of it, and compare: bit for bit, or within a bound on another machine."""
    from tunesmith.errors import GateRefused
    from tunesmith.pipeline.reproduction import reproduce_version
    from tunesmith.terminal import watching
    from tunesmith.terminal.versions_screen import reproduction_screen

    with watching(is_quiet=as_json) as watcher:
        found = reproduce_version(model, store=open_store(workspace), watcher=watcher)
    show(found.as_json() if as_json else reproduction_screen(found), as_json=as_json)
    if not found.holds:
        raise GateRefused(f"{found.ref} is not reproduced. What differs: {'; '.join(found.differs) or 'nothing that is known'}")


def _aliases(version: ModelVersion, *, store: Store) -> tuple[str, ...]:
    pointing = store.ledger.aliases(version.name)
    return tuple(sorted(alias for alias, number in pointing.items() if number == version.number))


def _plain(version: ModelVersion, *, aliases: tuple[str, ...], store: Store) -> dict[str, Any]:
    from tunesmith.pipeline import stored_sheet
    from tunesmith.terminal import version_as_json

    folder = store.artefacts.root / version.artefact
    return version_as_json(version, aliases=aliases, folder=folder, sheet=stored_sheet(version, store=store))
