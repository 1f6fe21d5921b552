"""`tunesmith requests ...`: what servers of this workspace answered, and what was said of it, whether one runs or not."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, command_group, open_store, show

__all__ = ["requests_app"]

requests_app = command_group("requests", "What servers answered, and what was said of it.")


@requests_app.callback()
def requests() -> None:
    """What servers answered, and what was said of it."""


@requests_app.command("list")
def list_requests(
    last: Annotated[int, typer.Option(metavar="N", help="So many of the newest.", min=1, max=100_000)] = 20,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """List the newest answers, the last one last."""
    from tunesmith.store import RequestReader
    from tunesmith.terminal.requests_screen import request_as_json, requests_screen

    found = RequestReader(open_store(workspace).requests).newest(last)
    show([request_as_json(one) for one in found] if as_json else requests_screen(found), as_json=as_json)


@requests_app.command("show")
def show_request(
    answer: Annotated[str, typer.Argument(metavar="ANSWER", help="The id that the client was given, such as chatcmpl-1a2b.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show an answer, its question if texts were kept, and what was said of it."""
    from tunesmith.store import RequestReader
    from tunesmith.terminal.requests_screen import request_as_json, request_screen

    reader = RequestReader(open_store(workspace).requests)
    found, said = reader.find(answer), list(reader.feedback(interaction=answer))
    show(request_as_json(found, said) if as_json else request_screen(found, said), as_json=as_json)


@requests_app.command("erase")
def erase_requests(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose: what clients sent as `user`.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Remove every answer to one user from the log, with its question and what was said of it. There is no way back."""
    from tunesmith.pipeline.erasing import erase_user

    num = erase_user(user, store=open_store(workspace))
    show({"erased": num} if as_json else f"{num:,} {'answer' if num == 1 else 'answers'} erased", as_json=as_json)
