"""A data report as one page: no script, nothing loaded from anywhere, and whatever stands in the data stays text.

Pictures are SVG in the page itself, so they take its colours, light or dark; each has a title, a description and its table beside it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from importlib.resources import files

from tunesmith import __version__
from tunesmith.data.profile import Bin
from tunesmith.pipeline.data_parts import Histogram, Sample, Samples, Section, Table

__all__ = ["data_page", "shown"]

_HEIGHT = 100
_BAR = 10
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, marks that turn the direction of what follows, and halves of characters: a reader must see that they are there."""


def data_page(title: str, sections: Sequence[Section]) -> str:
    """The page of a report."""
    headlines = [pair for section in sections for pair in section.headline]
    tiles = "".join(f"<div><dt>{shown(name)}</dt><dd>{shown(value)}</dd></div>" for name, value in headlines)
    links = "".join(f'<a href="#{section.name}">{shown(section.title)}</a>' for section in sections)
    body = "\n".join(_section(section) for section in sections)
    style = files("tunesmith.pipeline").joinpath("data_page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{shown(title)}: data report</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="kind">Data report</p>
<h1>{shown(title)}</h1>
<dl class="tiles">{tiles}</dl>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<footer>tunesmith {__version__}. Made on this machine; the page loads nothing from anywhere.</footer>
</body>
</html>
"""


def shown(text: object) -> str:
    """Text as it may stand in HTML; characters that cannot be seen are named."""
    return _INVISIBLE.sub(lambda found: f'<span class="sign">U+{ord(found[0]):04X}</span>', html.escape(str(text)))


def _section(section: Section) -> str:
    parts = "\n".join(_part(part, name=f"{section.name}-{i}") for i, part in enumerate(section.parts))
    return f"""<section id="{section.name}" aria-labelledby="{section.name}-title">
<h2 id="{section.name}-title">{shown(section.title)}</h2>
<p class="summary">{shown(section.summary)}</p>
{parts}
</section>"""


def _part(part: Table | Histogram | Samples, *, name: str) -> str:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Histogram):
        return _histogram(part, name=name)
    return _samples(part)


def _table(table: Table) -> str:
    largest = max((_number(row[table.bars]) for row in table.rows), default=0) if table.bars is not None else 0
    head = "".join(f'<th scope="col"{_aligned(table, i)}>{shown(name)}</th>' for i, name in enumerate(table.columns))
    rows = "\n".join(
        "<tr>" + "".join(_cell(table, row, i, largest=largest) for i in range(len(row))) + "</tr>" for row in table.rows
    )
    return f"""<div class="scroll" role="region" tabindex="0" aria-label="{shown(table.caption)}"><table>
<caption>{shown(table.caption)}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>"""


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
    is_figure = at > 0 and all(isinstance(cell, int | float) or cell == "" or str(cell).endswith(" %") for cell in cells)
    return ' class="figure"' if is_figure else ' dir="auto"' if at else ""


def _number(value: str | int | float) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _histogram(picture: Histogram, *, name: str) -> str:
    found = picture.lengths
    median, most = found.percentiles["p50"], found.percentiles["p95"]
    peak = max(found.bins, key=lambda one: one.num)
    described = (
        f"{found.num:,} values from {found.smallest:,} to {found.largest:,} {picture.unit}. The most frequent lengths are "
        f"{_span(peak)}: {peak.num:,}. The lines mark p50 ({median:,.0f}) and p95 ({most:,.0f})."
    )
    rows = tuple((_span(one), one.num) for one in found.bins)
    table = _table(Table(picture.caption, (picture.unit, "number"), rows, bars=1))
    return f"""<figure>
<figcaption>{shown(picture.caption)}</figcaption>
{_bars(found.bins, marks=(median, most), name=name, title=picture.caption, described=described)}
<p class="axis" aria-hidden="true"><span>{found.bins[0].low:,}</span><span>{picture.unit}</span><span>{_end(found.bins[-1])}</span></p>
<p class="legend">{shown(described)}</p>
<details><summary>As a table</summary>{table}</details>
</figure>"""


def _bars(bins: Sequence[Bin], *, marks: Sequence[float], name: str, title: str, described: str) -> str:
    tallest = max(one.num for one in bins) or 1
    drawn = []
    for i, one in enumerate(bins):
        height = max(_HEIGHT * one.num / tallest, 1.0 if one.num else 0.0)
        kind = ' class="tail"' if one.high is None else ""
        drawn.append(f'<rect{kind} x="{_BAR * i + 0.5}" y="{_HEIGHT - height:.2f}" width="{_BAR - 1}" height="{height:.2f}"/>')
    lines = [
        f'<line class="mark" x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="{_HEIGHT}" vector-effect="non-scaling-stroke"/>'
        for x in (_place(bins, mark) for mark in marks)
    ]
    return (
        f'<svg class="histogram" viewBox="0 0 {_BAR * len(bins)} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{shown(title)}</title>'
        f'<desc id="{name}-d">{shown(described)}</desc>{"".join(drawn)}{"".join(lines)}</svg>'
    )


def _place(bins: Sequence[Bin], value: float) -> float:
    """Where a value stands on the x axis."""
    for i, one in enumerate(bins):
        if one.high is None or value < one.high:
            width = (one.high or one.low + 1) - one.low
            return _BAR * (i + min(max((value - one.low + 0.5) / width, 0.0), 1.0))
    return float(_BAR * len(bins))


def _span(one: Bin) -> str:
    if one.high is None:
        return f"{one.low:,} and more"
    return f"{one.low:,}" if one.high - one.low == 1 else f"{one.low:,} to {one.high - 1:,}"


def _end(last: Bin) -> str:
    return f"{last.low:,} and more" if last.high is None else f"{last.high - 1:,}"


def _samples(samples: Samples) -> str:
    return f"""<details open><summary>{shown(samples.caption)}</summary>
{"".join(map(_sample, samples.samples))}</details>"""


def _sample(sample: Sample) -> str:
    remark = f'<span dir="auto">{shown(sample.remark)}</span>' if sample.remark else ""
    text = f'<pre dir="auto">{shown(sample.text)}</pre>\n' if sample.text else ""
    return f'<article><p class="where"><code>{shown(sample.source)}</code>{remark}</p>\n{text}</article>\n'
