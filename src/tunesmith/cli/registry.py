"""The commands of the registry: which version answers, how that came about, and what may go."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, open_store, show
from tunesmith.errors import UserError

__all__ = ["delete", "gc", "history", "lineage", "promote", "rollback", "unalias"]

Ref = Annotated[str, typer.Argument(metavar="REF", help="A version such as boutique@7, or boutique@staging.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]
Because = Annotated[str, typer.Option("--because", metavar="TEXT", help="The reason, kept with the event.")]


def promote(
    ref: Ref,
    alias: Annotated[
        str, typer.Option("--alias", metavar="NAME", help="What it becomes; `champion` answers by default.")
    ] = "champion",
    traffic: Annotated[
        list[str] | None,
        typer.Option("--traffic", metavar="REF=SHARE", help="Give another version a share: boutique@3=0.1. May be given often."),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option("--shadow", metavar="REF", help="Send a version copies of the requests; nobody sees its answers."),
    ] = None,
    expected_generation: Annotated[
        int | None,
        typer.Option("--expected-generation", metavar="N", help="Refuse if the alias has moved since; 0: it is new.", min=0),
    ] = None,
    because: Because = "",
    force: Annotated[bool, typer.Option("--force", help="Set aside what speaks against it, on record; needs --because.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Let a version answer for an alias, if its files are sound, its proofs hold and its recipe's rule allows it."""
    from tunesmith.pipeline.registry import promote_ref
    from tunesmith.terminal.registry_screen import moved_screen

    store = open_store(workspace)
    moved = promote_ref(
        ref,
        store=store,
        alias=alias,
        traffic=_shares(traffic or ()),
        shadows=tuple(shadow or ()),
        expected_generation=expected_generation,
        because=because,
        force=force,
    )
    previous = store.ledger.deployment(moved.name, "previous")
    show(asdict(moved) if as_json else moved_screen(moved, previous=previous), as_json=as_json)


def rollback(name: Name, because: Because = "", workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Make the champion what it was before its last change; a second rollback undoes the first."""
    from tunesmith.pipeline.registry import go_back
    from tunesmith.terminal.registry_screen import moved_screen

    store = open_store(workspace)
    moved = go_back(name, store=store, because=because)
    previous = store.ledger.deployment(moved.name, "previous")
    show(asdict(moved) if as_json else moved_screen(moved, previous=previous), as_json=as_json)


def history(
    ref: Annotated[str, typer.Argument(metavar="NAME", help="A model's name; a version or an alias for its own events alone.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """List everything that happened to a model: who, when and why."""
    from tunesmith.pipeline.registry import history as read_history
    from tunesmith.terminal.registry_screen import history_screen

    events = read_history(ref, store=open_store(workspace))
    show([asdict(event) for event in events] if as_json else history_screen(events), as_json=as_json)


def lineage(ref: Ref, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show where a version comes from: data, recipe, base, parents, and what was found and proved of it."""
    from tunesmith.pipeline.registry import lineage as read_lineage
    from tunesmith.terminal.registry_screen import lineage_screen

    branch = read_lineage(ref, store=open_store(workspace))
    show(branch.as_json() if as_json else lineage_screen(branch), as_json=as_json)


def delete(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A version by its number, such as boutique@7.")],
    because: Because = "",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Take a version out of the registry. Its number is not used again, and `gc` removes its files later."""
    from tunesmith.pipeline.registry import delete_ref

    version = delete_ref(ref, store=open_store(workspace), because=because)
    text = f"{version.ref} is deleted; its files stay until `tunesmith gc`"
    show({"deleted": version.ref, "artefact": version.artefact} if as_json else text, as_json=as_json)


def unalias(
    ref: Annotated[str, typer.Argument(metavar="REF", help="An alias of your own, such as boutique@staging.")],
    expected_generation: Annotated[
        int | None, typer.Option("--expected-generation", metavar="N", help="Refuse if the alias has moved since.", min=1)
    ] = None,
    because: Because = "",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Take away an alias of your own; the versions that it named stay."""
    from tunesmith.pipeline.registry import remove_alias

    held = remove_alias(ref, store=open_store(workspace), because=because, expected_generation=expected_generation)
    text = f"{held.name}@{held.alias} is removed; it was {held.name}@{held.version}, generation {held.generation}"
    show(asdict(held) if as_json else text, as_json=as_json)


def gc(
    grace: Annotated[
        float, typer.Option("--grace", metavar="DAYS", help="Keep what was made or used in these days.", min=0.0)
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Remove stored data that no version, alias, report or proof names any more."""
    from tunesmith.pipeline.registry import clear_up
    from tunesmith.terminal.registry_screen import collected_rubbish_screen

    found = clear_up(store=open_store(workspace), grace_days=grace, is_dry_run=dry_run)
    show(asdict(found) | {"num_bytes": found.num_bytes} if as_json else collected_rubbish_screen(found), as_json=as_json)


def _shares(given: list[str] | tuple[()]) -> dict[str, float]:
    shares = {}
    for text in given:
        ref, _, share = text.partition("=")
        if ref in shares:
            raise UserError(f"--traffic {text}: {ref} is named twice; name it once")
        try:
            shares[ref] = float(share)
        except ValueError as error:
            raise UserError(f"--traffic {text}: write a version and its share between 0 and 1, such as boutique@3=0.1") from error
    return shares
