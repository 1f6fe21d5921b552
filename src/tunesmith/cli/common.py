"""What every command shares: its options, the workspace it opens, and how it prints a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from tunesmith.errors import UserError

if TYPE_CHECKING:
    from tunesmith.store import Store

__all__ = ["AsJson", "Workspace", "command_group", "one_of", "open_store", "show"]

Workspace = Annotated[
    Path | None, typer.Option("--workspace", help="Where everything is kept. Default: TUNESMITH_WORKSPACE, else ./.tunesmith.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def command_group(name: str, help_text: str, *, runs_alone: bool = False) -> typer.Typer:
    """Commands under one name.

    Args:
        name: as people type it.
        help_text: what the group is about.
        runs_alone: whether the name without a command does something; else it prints the help.
    """
    return typer.Typer(
        name=name,
        help=help_text,
        no_args_is_help=not runs_alone,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def one_of(value: str | None, known: Any, *, option: str) -> Any:
    """The value of an option, if it is one of a Literal's; None passes. The Literal is then loaded only where it is needed.

    Raises:
        UserError: it is none of them.
    """
    if value is not None and value not in get_args(known):
        raise UserError(f"{option}: {value!r} is unknown. Known: {', '.join(get_args(known))}")
    return value


def open_store(workspace: Path | None) -> Store:
    """The store in the workspace that was named, or in the default one."""
    from tunesmith.store import Store, find_workspace

    return Store(find_workspace(workspace))


def show(content: object, *, as_json: bool) -> None:
    """Print a result to stdout: JSON for machines, text or a rich screen for people."""
    if as_json:
        import orjson

        typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY))
        return
    from rich.console import Console

    Console(highlight=False).print(content, markup=False, soft_wrap=True)
