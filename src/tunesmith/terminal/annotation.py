"""What the terminal says while people annotate, and how far they agree."""

from __future__ import annotations

import sys
import webbrowser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tunesmith.data.agreement import Agreement
from tunesmith.records import Dropped

__all__ = ["agreement_screen", "annotating_lines", "open_page"]

_MOST_SHOWN = 10


def open_page(*, no_browser: bool) -> Callable[[str, Sequence[Dropped]], None]:
    """What to do once the page can be had: print its address, say what could not be read, and open it."""

    def tell(url: str, dropped: Sequence[Dropped]) -> None:
        print(url, flush=True)
        for line in _left_out(dropped):
            print(line, file=sys.stderr)
        print("Every decision is saved at once. Ctrl-C stops.", file=sys.stderr, flush=True)
        if not no_browser:
            webbrowser.open(url)

    return tell


def annotating_lines(summary: str, dropped: Sequence[Dropped]) -> str:
    """What was taken over or written, and what was not."""
    return "\n".join([summary, *_left_out(dropped)])


def agreement_screen(found: Mapping[str, Agreement]) -> str:
    """Agreement for people, a block for labels and one for ranked pairs."""
    blocks = [_block(kind, one) for kind, one in found.items()]
    return "\n\n".join(blocks) or "No labels and no ranked pairs yet."


def _block(kind: str, found: Agreement) -> str:
    lines = [f"{kind:<10} {', '.join(f'{name} {num:,}' for name, num in found.labels.items())}"]
    if not found.num_items:
        return "\n".join([*lines, "           nobody has judged a row that somebody else has judged too"])
    lines.append(
        f"{'compared':<10} {found.num_items:,} rows with {found.num_ratings:,} judgements by {', '.join(found.annotators)}"
    )
    lines.append(f"{'equal':<10} {100 * (found.observed or 0):.1f} % of pairs of judgements")
    lines += [f"{'Cohen':<10} {_figure(kappa)}  {pair}" for pair, kappa in found.cohen.items()]
    lines.append(f"{'Fleiss':<10} {_figure(found.fleiss)}  {found.num_fleiss_items:,} rows with equally many judgements")
    lines += [f"{'alpha':<10} {_figure(alpha)}  {level}" for level, alpha in found.alpha.items()]
    return "\n".join([*lines, "           1 is full agreement, 0 what chance would give"])


def _figure(value: float | None) -> str:
    return "   –  " if value is None else f"{value:6.3f}"


def _left_out(dropped: Sequence[Dropped]) -> list[str]:
    counts = Counter(row.reason for row in dropped)
    lines = [f"left out: {num:,} {reason}" for reason, num in counts.most_common()]
    lines += [f"  {row.source}  {row.detail}" for row in dropped[:_MOST_SHOWN]]
    return [*lines, *([f"  … and {len(dropped) - _MOST_SHOWN:,} more"] if len(dropped) > _MOST_SHOWN else [])]
