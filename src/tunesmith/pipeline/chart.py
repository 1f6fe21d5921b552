"""The loss chart as SVG, drawn by Vega-Lite inside this process: no browser, no network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import altair as alt

from tunesmith.pipeline.curve import Curve, smoothed

__all__ = ["loss_chart"]

_TRAINING, _VALIDATION, _INK, _SOFT, _GRID = "#2f6fb0", "#c2570c", "#24292f", "#6e7781", "#eaeef2"
_WIDTH, _HEIGHT = 620, 300
_NUM_POINTS = 80
"""Of the smoothed training line: steps jitter, and their mean over a stretch is what can be compared with validation."""
_NUM_RAW_POINTS = 600
"""Of the faint line behind it; more are not seen apart and make the file large."""

Rows = Sequence[Mapping[str, float]]


class _Axes(NamedTuple):
    x: alt.X
    y: alt.Y


def loss_chart(curve: Curve) -> str:
    """Training and validation loss by step, the best step marked, each line named at its end."""
    every = max(len(curve.steps) // _NUM_RAW_POINTS, 1)
    raw: Rows = [{"step": step, "loss": loss} for step, loss in curve.steps[::every]]
    training: Rows = [{"step": step, "loss": loss} for step, loss in smoothed(curve.steps, num_points=_NUM_POINTS)]
    training = training or [{"step": p.step, "loss": p.train_loss} for p in curve.points]
    validation: Rows = [{"step": p.step, "loss": p.validation_loss} for p in curve.points if p.validation_loss is not None]
    drawn = [row["loss"] for row in (*training, *validation)] or [0.0, 1.0]
    margin = 0.06 * (max(drawn) - min(drawn)) or 0.1
    lower, upper = max(min(drawn) - margin, 0.0), max(drawn) + margin
    axes = _Axes(
        x=alt.X("step:Q", title="optimiser step", scale=alt.Scale(domain=[0, max(curve.num_steps, 1)], nice=False)),
        y=alt.Y("loss:Q", title="loss (nats per learned token)", scale=alt.Scale(domain=[lower, upper], nice=True)),
    )
    layers: list[alt.Chart] = []
    if len(raw) > _NUM_POINTS:
        layers.append(_chart(raw, axes).mark_line(color=_TRAINING, opacity=0.22, strokeWidth=1, clip=True))
    layers.append(_chart(training, axes).mark_line(color=_TRAINING, strokeWidth=2.2, point=len(training) == 1))
    if validation:
        layers.append(
            _chart(validation, axes).mark_line(
                color=_VALIDATION, strokeWidth=2.2, point=alt.OverlayMarkDef(color=_VALIDATION, size=42, filled=True, opacity=1)
            )
        )
    layers += _best(curve, axes)
    layers += _names(training, validation, axes, span=upper - lower, end=curve.num_steps)
    return _as_svg(layers, curve)


def _chart(rows: Rows, axes: _Axes) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).encode(x=axes.x, y=axes.y)


def _best(curve: Curve, axes: _Axes) -> list[alt.Chart]:
    """A line down to the step whose weights were kept, and a ring around its loss."""
    if curve.best is None or curve.best.validation_loss is None:
        return []
    chart = _chart([{"step": curve.best.step, "loss": curve.best.validation_loss}], axes)
    return [
        chart.encode(y=alt.value(_HEIGHT), y2=alt.value(0)).mark_rule(color=_SOFT, strokeDash=[3, 3]),
        chart.mark_point(color=_VALIDATION, size=190, strokeWidth=2, filled=False, opacity=1),
        chart.encode(y=alt.value(-7)).mark_text(color=_INK, fontSize=12, fontWeight="bold", text="best"),
    ]


def _names(training: Rows, validation: Rows, axes: _Axes, *, span: float, end: int) -> list[alt.Chart]:
    """Each line's name and last value at its right end; names that would touch move apart."""
    ends = [
        (name, color, rows[-1])
        for name, color, rows in (("training", _TRAINING, training), ("validation", _VALIDATION, validation))
        if rows
    ]
    ends.sort(key=lambda end: end[2]["loss"])
    gap = (ends[-1][2]["loss"] - ends[0][2]["loss"]) / span * _HEIGHT if len(ends) == 2 else _HEIGHT
    push = max(0.0, (16 - gap) / 2)
    return [
        _chart([{"step": end, "loss": row["loss"]}], axes).mark_text(
            text=f"{name} {row['loss']:.2f}",
            color=color,
            fontSize=12.5,
            fontWeight="bold",
            align="left",
            dx=13,
            dy=push - 2 * push * i,
        )
        for i, (name, color, row) in enumerate(ends)
    ]


def _as_svg(layers: Sequence[alt.Chart], curve: Curve) -> str:
    best = curve.best
    kept = (
        f"the weights of step {best.step:,} were kept (validation {best.validation_loss:.3f})"
        if best
        else "the last weights were kept"
    )
    titled = alt.layer(*layers).properties(
        width=_WIDTH,
        height=_HEIGHT,
        title=alt.TitleParams(text=f"{curve.ref}: loss while training", subtitle=f"{curve.num_steps:,} steps; {kept}"),
        padding={"left": 16, "top": 14, "right": 18, "bottom": 12},
        background="white",
    )
    styled = (
        titled.configure_view(stroke=None, clip=False)
        .configure_axis(
            gridColor=_GRID,
            domainColor=_SOFT,
            tickColor=_SOFT,
            labelColor=_INK,
            titleColor=_SOFT,
            titleFontWeight="normal",
            labelFontSize=12,
            titleFontSize=12,
            titlePadding=10,
            format="~g",
        )
        .configure_axisX(grid=False, format=",d", tickMinStep=1, tickCount=8)
        .configure_title(
            anchor="start", fontSize=16, color=_INK, subtitleColor=_SOFT, subtitleFontSize=12.5, subtitlePadding=6, offset=22
        )
    )
    text = io.StringIO()
    styled.save(text, format="svg")
    return text.getvalue()
