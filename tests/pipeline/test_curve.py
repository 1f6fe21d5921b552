"""The learning curve and its chart as SVG."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tunesmith.pipeline import Curve
from tunesmith.pipeline.chart import loss_chart
from tunesmith.pipeline.curve import smoothed
from tunesmith.records import CurvePoint


def a_curve(num_steps: int = 700, *, has_validation: bool = True) -> Curve:
    points = tuple(
        CurvePoint(
            step=step,
            train_loss=2 - step / num_steps,
            validation_loss=1.5 + abs(step - 0.6 * num_steps) / num_steps if has_validation else None,
        )
        for step in range(num_steps // 10, num_steps + 1, num_steps // 10)
    )
    return Curve(
        ref="shop@1",
        points=points,
        steps=tuple((step, 2 - step / num_steps + 0.1 * (-1) ** step) for step in range(1, num_steps + 1)),
        best_step=6 * num_steps // 10 if has_validation else num_steps,
        num_steps=num_steps,
        log=Path("train.jsonl"),
        chart=None,
        warnings=(),
    )


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_smoothing_keeps_the_mean_and_the_order() -> None:
    steps = [(step, float(step % 7)) for step in range(1, 101)]
    for num_points in (1, 7, 50, 100):
        means = smoothed(steps, num_points=num_points)
        assert len(means) == num_points
        assert means == sorted(means)
    assert smoothed(steps, num_points=1) == [(50.5, pytest.approx(sum(loss for _, loss in steps) / 100))]
    assert smoothed(steps, num_points=200) == steps
    assert smoothed([], num_points=10) == []


def test_the_chart_has_a_title_axes_with_units_named_lines_and_its_best_step() -> None:
    found = texts(loss_chart(a_curve()))
    assert "shop@1: loss while training" in found
    assert "700 steps; the weights of step 420 were kept (validation 1.500)" in found
    assert "optimiser step" in found
    assert "loss (nats per learned token)" in found
    assert "best" in found
    assert any(re.fullmatch(r"training 1\.0\d", text) for text in found)
    assert "validation 1.90" in found


@pytest.mark.parametrize("num_steps", [10, 12_000])
def test_the_chart_needs_nothing_from_elsewhere_and_stays_small(num_steps: int) -> None:
    svg = loss_chart(a_curve(num_steps))
    assert len(svg) < 60_000
    assert not re.findall(r'(?:href|src)="|url\((?!#)|<script|<image|@import', svg)
    unnumbered = [re.sub(r"clip\d+", "clip", drawn) for drawn in (svg, loss_chart(a_curve(num_steps)))]
    assert unnumbered[0] == unnumbered[1]


def test_without_validation_rows_nothing_is_called_best() -> None:
    found = texts(loss_chart(a_curve(has_validation=False)))
    assert "best" not in found
    assert not any("validation" in text for text in found)
    assert "700 steps; the last weights were kept" in found


def test_a_version_without_a_log_is_drawn_from_its_measurements() -> None:
    curve = Curve(**{**{name: getattr(a_curve(), name) for name in Curve.__dataclass_fields__}, "steps": ()})
    assert "training 1.00" in texts(loss_chart(curve))
