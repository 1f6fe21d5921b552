"""What every command prints alike."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "show"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def show(content: object, *, as_json: bool) -> None:
    """Print a result to stdout: JSON for machines, text or a rich screen for people."""
    if as_json:
        import orjson

        typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
        return
    from rich.console import Console

    Console(highlight=False).print(content, markup=False, soft_wrap=True)
