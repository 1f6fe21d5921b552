"""The loss chart in the terminal, and the same as a table for pipes and screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from tunesmith.pipeline import Curve
from tunesmith.pipeline.curve import smoothed
from tunesmith.terminal.layout import columns, field

__all__ = ["curve_screen", "loss_chart", "loss_table"]

_ROWS = 12
_LEFT, _RIGHT = 10, 17
"""Columns for the figures of the axis, and for the names at the lines' ends."""
_WIDEST = 100
_NARROWEST = 50
"""Below this many columns there is no room for a chart, and the table says it better."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the eight dots of a braille cell, by row and column (Unicode 2800 to 28FF)."""
_TRAINING, _VALIDATION = "blue", "bold dark_orange"


class _Scale(NamedTuple):
    """From steps and losses to dots, counted from the left and from the top."""

    num_steps: int
    lower: float
    upper: float
    columns: int

    def x(self, step: float) -> int:
        return round((step - 1) / max(self.num_steps - 1, 1) * (2 * self.columns - 1))

    def y(self, loss: float) -> int:
        share = (self.upper - loss) / (self.upper - self.lower)
        return min(max(round(share * (4 * _ROWS - 1)), 0), 4 * _ROWS - 1)


def curve_screen(curve: Curve, *, as_chart: bool | None = None) -> Text:
    """How a version was trained.

    Args:
        curve: what `read_curve` gave.
        as_chart: False draws a table; None a chart in a terminal that is wide enough, and a table elsewhere.
    """
    console = Console()
    if as_chart is None:
        as_chart = console.is_terminal and console.width >= _NARROWEST
    parts = [
        field("loss", f"{curve.ref} · {curve.num_steps:,} steps · nats per learned token, lower is better"),
        loss_chart(curve, width=console.width) if as_chart else Text(loss_table(curve)),
        *(field("warning", warning) for warning in curve.warnings),
    ]
    if curve.chart:
        parts.append(field("chart", _shown(curve.chart)))
    parts.append(field("log", _shown(curve.log) if curve.log else "gone: the points are from the version itself"))
    return Text("\n").join(parts)


def loss_table(curve: Curve) -> str:
    """The measurements, one a line."""
    rows = [["step", "training", "validation", ""]]
    for point in curve.points:
        measured = "" if point.validation_loss is None else f"{point.validation_loss:.3f}"
        is_best = curve.best is not None and point.step == curve.best_step
        rows.append([f"{point.step}", f"{point.train_loss:.3f}", measured, "best, kept" if is_best else ""])
    return columns(rows)


def loss_chart(curve: Curve, *, width: int) -> Text:
    """A line of dots for the training loss, `o` for validation, `◆` for the best; it needs no colour."""
    room = max(min(width, _WIDEST), _NARROWEST) - _LEFT - _RIGHT
    training = smoothed(curve.steps, num_points=room) or [(p.step, p.train_loss) for p in curve.points]
    validation = [(p.step, p.validation_loss) for p in curve.points if p.validation_loss is not None]
    if not training:
        return Text("  no step has been taken")
    losses = [loss for _, loss in (*training, *validation)]
    margin = 0.04 * (max(losses) - min(losses)) or 0.1
    scale = _Scale(curve.num_steps, min(losses) - margin, max(losses) + margin, room)
    cells = [[(" ", "")] * room for _ in range(_ROWS)]
    for y, bits in _line(training, scale).items():
        for x, cell in bits.items():
            cells[y][x] = (chr(0x2800 + cell), _TRAINING)
    for step, loss in validation:
        mark = "◆" if curve.best is not None and step == curve.best_step else "o"
        cells[scale.y(loss) // 4][scale.x(step) // 2] = (mark, _VALIDATION)
    names = _names(training, validation, scale)
    chart = Text()
    for y, row in enumerate(cells):
        chart.append(f"{_figure(y, scale):>{_LEFT - 2}} {'┤' if _figure(y, scale) else '│'}")
        drawn = row if y in names else row[: max((x + 1 for x in range(room) if row[x][0] != " "), default=0)]
        for character, style in drawn:
            chart.append(character, style=style)
        chart.append(*names.get(y, ("", "")))
        chart.append("\n")
    chart.append_text(_foot(curve, room))
    return chart


def _line(points: Sequence[tuple[float, float]], scale: _Scale) -> dict[int, dict[int, int]]:
    """Braille bits by row and column: every column of dots between two points, filled up so that steep parts do not break."""
    bits: dict[int, dict[int, int]] = {}

    def dot(x: int, y: int) -> None:
        row = bits.setdefault(y // 4, {})
        row[x // 2] = row.get(x // 2, 0) | _DOTS[y % 4][x % 2]

    at = [(scale.x(step), scale.y(loss)) for step, loss in points]
    dot(*at[0])
    for (x0, y0), (x1, y1) in pairwise(at):
        num = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(1, num + 1):
            dot(round(x0 + (x1 - x0) * i / num), round(y0 + (y1 - y0) * i / num))
    return bits


def _names(
    training: Sequence[tuple[float, float]], validation: Sequence[tuple[float, float]], scale: _Scale
) -> dict[int, tuple[str, str]]:
    """Each line's name and last figure, by the row in which it stands at the right."""
    names = {}
    for name, points, style in (("validation", validation, _VALIDATION), ("training", training, _TRAINING)):
        if points:
            y = scale.y(points[-1][1]) // 4
            if y in names:  # the lower loss gets the lower row
                y += 1 if points[-1][1] <= validation[-1][1] and y + 1 < _ROWS else -1
            names[y] = (f" {name} {points[-1][1]:.2f}", style)
    return names


def _figure(y: int, scale: _Scale) -> str:
    """The loss in the middle of a row, on every fourth row."""
    if y % 4 and y != _ROWS - 1:
        return ""
    return f"{scale.upper - (y + 0.5) / _ROWS * (scale.upper - scale.lower):.2f}"


def _foot(curve: Curve, room: int) -> Text:
    """The axis of steps, and what the marks mean."""
    middle, last = f"{(1 + curve.num_steps) // 2:,}", f"{curve.num_steps:,} steps"
    axis = f"1{middle:^{room - 2}}"[: room - len(f"{curve.num_steps:,}")].rstrip()
    foot = Text(f"{'':>{_LEFT - 2}} └{'─' * room}\n")
    foot.append(f"{'':>{_LEFT}}{axis:<{room - len(f'{curve.num_steps:,}')}}{last}\n")
    foot.append(f"{'':>{_LEFT}}⠒⠒ training")
    if curve.best is not None and curve.best.validation_loss is not None:
        best = f"◆ best: {curve.best.validation_loss:.3f} at step {curve.best_step:,}, kept"
        foot.append("   o validation" + (f"   {best}" if room > 50 else f"\n{'':>{_LEFT}}{best}"))
    return foot


def _shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
