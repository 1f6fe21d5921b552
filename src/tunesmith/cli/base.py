"""`tunesmith base ...`: the base model inside the package."""

from __future__ import annotations

from tunesmith.cli.common import AsJson, command_group, show

__all__ = ["base_app"]

base_app = command_group("base", "The base model inside the package.")


@base_app.callback()
def base() -> None:
    """The base model inside the package."""


@base_app.command()
def card(as_json: AsJson = False) -> None:
    """Print the model card: what it was made from, how, how good it is, and what it cannot do."""
    from tunesmith.model.base import read_card

    facts, text = read_card()
    show(facts if as_json else text, as_json=as_json)
