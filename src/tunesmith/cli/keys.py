"""`tunesmith keys ...`: who may use what is served."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.common import AsJson, Workspace, command_group, open_store, show

if TYPE_CHECKING:
    from tunesmith.store import ApiKey

__all__ = ["keys_app"]

keys_app = command_group("keys", "Who may use what is served: API keys, kept as hashes in the ledger.")


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="infer (default), feedback, tune or admin; may be given often."),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--expires-in", metavar="DAYS", help="How long it is good. Default: for ever.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(metavar="N", help="No limit if left out.", min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Of prompts and answers.", min=1)] = None,
    concurrent_requests: Annotated[int | None, typer.Option(metavar="N", help="Under way at once.", min=1)] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    from tunesmith.store import Quotas
    from tunesmith.terminal.keys_screen import new_key_screen

    quotas = Quotas(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent_requests=concurrent_requests
    )
    new = open_store(workspace).keys.create(name, scopes=scope or ["infer"], days=days, quotas=quotas)
    if as_json:
        show(_shown(new.key) | {"key": new.secret}, as_json=True)
        return
    typer.echo(new.secret)  # alone on stdout, so that it can go straight to where it is kept
    typer.echo(new_key_screen(new.key), err=True)


@keys_app.command(name="list")
def list_keys(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List all keys there ever were, without their secrets."""
    from tunesmith.terminal.keys_screen import keys_screen

    found = open_store(workspace).keys.all()
    show([_shown(key) for key in found] if as_json else keys_screen(found), as_json=as_json)


@keys_app.command()
def revoke(
    ref: Annotated[str, typer.Argument(metavar="KEY", help="Its name, or its beginning as `list` shows it.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Let a key open nothing any more; running servers know it within seconds."""
    from tunesmith.terminal.keys_screen import keys_screen

    revoked = open_store(workspace).keys.revoke(ref)
    show(_shown(revoked) if as_json else keys_screen([revoked]), as_json=as_json)


def _shown(key: ApiKey) -> dict[str, Any]:
    shown = asdict(key) | {"scopes": sorted(key.scopes), "is_good": key.is_good()}
    del shown["digest"]
    return shown
