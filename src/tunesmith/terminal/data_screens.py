"""Screens of what is trained on: the token ledger, and rows as the model reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tunesmith.pipeline import Preview
from tunesmith.terminal.layout import field

if TYPE_CHECKING:
    from tunesmith.data.ledger import Ledger

__all__ = ["ledger_table", "preview_screen"]


def ledger_table(ledger: Ledger) -> list[list[str]]:
    """Tokens of each source: all of them, and what became of each."""
    head = ["tokens of", "rows", "all", "supervised", "masked", "cut", "left out"]
    rows = [
        [
            name,
            f"{account.kept.rows:,}",
            f"{account.every.tokens:,}",
            f"{account.kept.supervised:,}",
            f"{account.num_masked:,}",
            f"{account.truncated.tokens:,}",
            f"{sum(tally.tokens for tally in account.dropped.values()):,}",
        ]
        for name, account in [*ledger.sources.items(), ("together", ledger.total)]
    ]
    return [head, *rows]


def preview_screen(shown: Preview) -> Iterator[Text]:
    """A row as the model reads it. What is learned stands out, between ** where there is no colour."""
    has_colour = Console().color_system is not None
    legend = "dim = context, green = trained on" if has_colour else "between ** = trained on, the rest is context"
    yield field("preview", f"{shown.source}   {legend}")
    text, sequence = Text(), 0
    for piece in shown.pieces:
        if piece.sequence != sequence:
            text.append("\n")
            sequence = piece.sequence
        content = piece.text.replace("\n", "⏎\n")
        if not piece.is_learned:
            text.append(content, style="dim")
        else:
            text.append(content if has_colour else f"**{content}**", style="bold green")
    yield field("", text)
    if shown.num_cut:
        yield field("", f"{shown.num_cut:,} tokens of this row are cut away, {shown.num_cut_supervised:,} of them supervised")
