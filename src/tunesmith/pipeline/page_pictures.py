"""Pictures as SVG: how values are spread, differences with their intervals, stated against real certainty.

Words stand beside a picture in HTML and not in it, so they stay readable at any width; each has its figures as a table or as text too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunesmith.data.profile import Bin
from tunesmith.pipeline.page_parts import Estimate, Forest, Histogram, Reliability, Table
from tunesmith.pipeline.page_text import shown, table

__all__ = ["forest", "histogram", "reliability"]

_HEIGHT = 100
_BAR = 10


def histogram(picture: Histogram, *, name: str) -> str:
    """Bars, and lines at the median and the 95th percentile."""
    found = picture.lengths
    median, most = found.percentiles["p50"], found.percentiles["p95"]
    peak = max(found.bins, key=lambda one: one.num)
    described = (
        f"{found.num:,} values from {found.smallest:,} to {found.largest:,} {picture.unit}. The most frequent lengths are "
        f"{_range(peak)}: {peak.num:,}. The lines mark p50 ({median:,.0f}) and p95 ({most:,.0f})."
    )
    rows = tuple((_range(one), one.num) for one in found.bins)
    as_table = table(Table(picture.caption, (picture.unit, "number"), rows, bars=1))
    return f"""<figure>
<figcaption>{shown(picture.caption)}</figcaption>
{_bars(found.bins, marks=(median, most), name=name, title=picture.caption, described=described)}
<p class="axis" aria-hidden="true"><span>{found.bins[0].low:,}</span><span>{picture.unit}</span><span>{_end(found.bins[-1])}</span></p>
<p class="legend">{shown(described)}</p>
<details><summary>As a table</summary>{as_table}</details>
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
        f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{shown(title, plain=True)}</title>'
        f'<desc id="{name}-d">{shown(described, plain=True)}</desc>{"".join(drawn)}{"".join(lines)}</svg>'
    )


def _place(bins: Sequence[Bin], value: float) -> float:
    """Where a value stands on the x axis."""
    for i, one in enumerate(bins):
        if one.high is None or value < one.high:
            width = (one.high or one.low + 1) - one.low
            return _BAR * (i + min(max((value - one.low + 0.5) / width, 0.0), 1.0))
    return float(_BAR * len(bins))


def _range(one: Bin) -> str:
    if one.high is None:
        return f"{one.low:,} and more"
    return f"{one.low:,}" if one.high - one.low == 1 else f"{one.low:,} to {one.high - 1:,}"


def _end(last: Bin) -> str:
    return f"{last.low:,} and more" if last.high is None else f"{last.high - 1:,}"


def forest(picture: Forest, *, name: str) -> str:
    """Differences with their intervals, one under the other on one scale, 0 in the middle and better on the right."""
    sign = -1 if picture.lower_is_better else 1
    bounds = [b for one in picture.estimates for b in (one.value, one.low, one.high) if b is not None and math.isfinite(b)]
    limit = max(map(abs, bounds), default=0.0) * 1.04 or 1.0
    rows = "\n".join(_estimate(one, sign=sign, limit=limit) for one in picture.estimates)
    turned = "Lower is better here, so the picture is turned round; the figures keep their sign."
    note = f'\n<p class="legend">{turned}</p>' if sign < 0 else ""
    return f"""<figure aria-labelledby="{name}-t">
<figcaption id="{name}-t">{shown(picture.caption)}</figcaption>
<ul class="forest">
{rows}
<li class="ends" aria-hidden="true"><span class="axis"><span>worse</span><span>no difference</span><span>better</span></span></li>
</ul>{note}
</figure>"""


def _estimate(one: Estimate, *, sign: int, limit: float) -> str:
    def at(value: float) -> str:
        return f"{500 + 500 * sign * value / limit:.1f}"

    drawn = '<line class="zero" x1="500" x2="500" y1="0" y2="24" vector-effect="non-scaling-stroke"/>'
    if math.isfinite(one.value):
        if one.low is not None and one.high is not None and math.isfinite(one.low) and math.isfinite(one.high):
            drawn += (
                f'<line class="span" x1="{at(one.low)}" x2="{at(one.high)}" y1="12" y2="12" vector-effect="non-scaling-stroke"/>'
            )
        drawn += (
            f'<line class="dot" x1="{at(one.value)}" x2="{at(one.value)}" y1="12" y2="12" vector-effect="non-scaling-stroke"/>'
        )
    kind = one.reading if one.reading in {"better", "worse"} else "unclear"
    return (
        f'<li class="{kind}"><span class="name" dir="auto">{shown(one.name)}</span>'
        f'<svg viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
        f'<span class="value">{shown(one.text)}</span><span class="reading">{shown(one.reading)}</span></li>'
    )


def reliability(picture: Reliability, *, name: str) -> str:
    """How often what was said with so much certainty was right: on the diagonal, certainty can be trusted."""
    dots = "".join(
        f'<circle cx="{100 * one.confidence:.2f}" cy="{100 - 100 * one.accuracy:.2f}" r="2.2"/>' for one in picture.bins
    )
    path = " ".join(f"{100 * one.confidence:.2f},{100 - 100 * one.accuracy:.2f}" for one in picture.bins)
    rows = tuple((f"{100 * one.confidence:.1f} %", f"{100 * one.accuracy:.1f} %", one.num_rows) for one in picture.bins)
    described = (
        "Stated certainty from left to right, share that was right from bottom to top; the dashed line is where they agree."
    )
    as_table = table(Table("As a table", ("stated certainty", "right", "rows"), rows, is_folded=True))
    return f"""<figure class="reliability">
<figcaption>{shown(picture.caption)}</figcaption>
<svg viewBox="-3 -3 106 106" role="img" aria-labelledby="{name}-t {name}-d">\
<title id="{name}-t">{shown(picture.caption, plain=True)}</title>\
<desc id="{name}-d">{described}</desc><rect class="frame" width="100" height="100" vector-effect="non-scaling-stroke"/>\
<line class="mark" x1="0" y1="100" x2="100" y2="0" vector-effect="non-scaling-stroke"/>\
<polyline points="{path}" vector-effect="non-scaling-stroke"/>{dots}</svg>
<p class="legend">{described}</p>
{as_table}
</figure>"""
