"""Screens of what is trained on: the token ledger, and rows as the model reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tunesmith.pipeline import Coverage, CoveredFile, Preview
from tunesmith.terminal.layout import field, first_of, on_one_line

if TYPE_CHECKING:
    from tunesmith.data.ledger import Ledger

__all__ = ["coverage_line", "coverage_screen", "ledger_table", "preview_screen"]


_BARS = 30
"""Width of the longest bar of a histogram."""


def coverage_screen(covered: CoveredFile) -> Text:
    """Whether there is enough data of the target's kind, what stands near, what to collect, and what could not be read."""
    found = covered.coverage
    num_open = found.num_targets - found.num_well - found.num_thin
    counts = f"{found.num_targets:,} targets: {found.num_well:,} covered well, {found.num_thin:,} thinly, {num_open:,} not at all"
    rows = f"{found.num_near_rows:,} of {found.num_rows:,} are near a target, worth {found.effective_rows:,.0f} that fit alike"
    parts = [
        field("coverage", Text(found.verdict, style="bold green" if found.verdict == "enough" else "bold yellow")),
        field("targets", counts),
        field("rows", rows),
        field("nearness", "\n".join(_histogram(found.histogram))),
    ]
    for gap in found.gaps:
        shown = "\n".join(f"{target.source}  {on_one_line(target.text, limit=70)}" for target in gap.examples)
        parts.append(field("missing", f"{gap.topic} ({gap.num_targets})\n{shown}"))
    parts += [field("collect" if at == 0 else "", advice) for at, advice in enumerate(found.advice)]
    if covered.unread:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in covered.unread.items())
        num_unread = sum(covered.unread.values())
        read = f"{found.num_rows:,} of {found.num_rows + num_unread:,} rows; {num_unread:,} cannot be read ({reasons})"
        parts.append(field("read", "\n".join([read, *covered.examples])))
    if covered.skipped:
        parts.append(field("not read", "\n".join(first_of(covered.skipped))))
    return Text("\n").join(parts)


def coverage_line(found: Coverage, *, num_test: int) -> Text:
    """The verdict on the test rows in a few words, and what they lack; of many it was found on some."""
    num_open = found.num_targets - found.num_well - found.num_thin
    counts = f"{found.num_well:,} well, {found.num_thin:,} thinly, {num_open:,} not at all"
    drawn = f" of {num_test:,}" if num_test > found.num_targets else ""
    lines = [f"{found.num_targets:,}{drawn} test rows: {counts} · {found.verdict}"]
    lines += [f"{gap.topic} ({gap.num_targets}): {on_one_line(gap.examples[0].text, limit=70)}" for gap in found.gaps[:3]]
    return field("coverage", "\n".join(lines))


def _histogram(counts: Sequence[int]) -> Iterator[str]:
    """Targets by how near their nearest row is: 1 is the same words, 0 has none in common."""
    for at, count in enumerate(counts):
        bar = "█" * max(round(_BARS * count / max(counts)), int(count > 0))
        yield f"{at / len(counts):.1f} to {(at + 1) / len(counts):.1f}  {count:>4,}  {bar}".rstrip()


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
    if shown.left_out is not None:
        yield field("preview", f"{shown.source}   not trained on: {shown.left_out}")
        return
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
