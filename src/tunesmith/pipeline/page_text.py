"""Text, tables and samples as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from tunesmith.pipeline.page_parts import Sample, Samples, Table

__all__ = ["samples", "shown", "table"]

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, marks that turn the direction of what follows, and halves of characters: a reader must see that they are there."""
_FIGURE = re.compile(r"[<+-]?\s?[\d.,]+(e[+-]\d+)?( %)?( \[[-+\d., e]+\])?|")
"""A number, a share, or a figure with its interval."""


def shown(text: object, *, plain: bool = False) -> str:
    """Text as it may stand in HTML; characters that cannot be seen are named, in a box unless it must be `plain`."""
    around = "{}" if plain else '<span class="sign">{}</span>'
    return _INVISIBLE.sub(lambda found: around.format(f"U+{ord(found[0]):04X}"), html.escape(str(text)))


def table(table: Table) -> str:
    """A table that scrolls by itself where it is wider than the page."""
    largest = max((_number(row[table.bars]) for row in table.rows), default=0) if table.bars is not None else 0
    head = "".join(f'<th scope="col"{_aligned(table, i)}>{shown(name)}</th>' for i, name in enumerate(table.columns))
    rows = "\n".join(
        "<tr>" + "".join(_cell(table, row, i, largest=largest) for i in range(len(row))) + "</tr>" for row in table.rows
    )
    caption = "" if table.is_folded else f"\n<caption>{shown(table.caption)}</caption>"
    whole = f"""<div class="scroll" role="region" tabindex="0" aria-label="{shown(table.caption, plain=True)}"><table>{caption}
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>"""
    return f"<details><summary>{shown(table.caption)}</summary>{whole}</details>" if table.is_folded else whole


def _cell(table: Table, row: Sequence[str | int | float], at: int, *, largest: float) -> str:
    value = row[at]
    text = shown(f"{value:,}" if isinstance(value, int | float) else value)
    if at > 0:
        return f"<td{_aligned(table, at)}>{text}</td>"
    bar = ""
    if table.bars is not None and largest > 0:
        length = 100 * _number(row[table.bars]) / largest
        # Under the row's name, so that all bars begin at one line.
        bar = (
            '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect width="{length:.2f}" height="8"/></svg>'
        )
    return f'<th scope="row" dir="auto">{text}{bar}</th>'


def _aligned(table: Table, at: int) -> str:
    """Numbers and shares stand to the right, and in their own width of digits."""
    cells = [row[at] for row in table.rows]
    is_figure = at > 0 and all(isinstance(cell, int | float) or _FIGURE.fullmatch(cell) for cell in cells)
    return ' class="figure"' if is_figure else ' dir="auto"' if at else ""


def _number(value: str | int | float) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def samples(samples: Samples) -> str:
    """Rows to look at, under one heading."""
    return f"""<details open><summary>{shown(samples.caption)}</summary>
{"".join(map(_sample, samples.samples))}</details>"""


def _sample(sample: Sample) -> str:
    remark = f'<span dir="auto">{shown(sample.remark)}</span>' if sample.remark else ""
    text = f'<pre dir="auto">{shown(sample.text)}</pre>\n' if sample.text else ""
    return f'<article><p class="where"><code>{shown(sample.source)}</code>{remark}</p>\n{text}</article>\n'
