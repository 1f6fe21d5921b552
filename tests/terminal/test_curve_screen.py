"""The loss chart of characters, and its table."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.pipeline import Curve
from tunesmith.records import CurvePoint
from tunesmith.terminal.curve_screen import curve_screen, loss_chart, loss_table


def a_curve(num_steps: int = 100) -> Curve:
    """Training falls from 3 to 1; validation is best at 60 and rises after it."""
    points = tuple(
        CurvePoint(step=step, train_loss=3 - 2 * step / num_steps, validation_loss=1.5 + abs(step - 0.6 * num_steps) / num_steps)
        for step in range(num_steps // 10, num_steps + 1, num_steps // 10)
    )
    return Curve(
        ref="shop@1",
        points=points,
        steps=tuple((step, 3 - 2 * step / num_steps) for step in range(1, num_steps + 1)),
        best_step=6 * num_steps // 10,
        num_steps=num_steps,
        log=None,
        chart=None,
        warnings=("overfitting after step 60",),
    )


def dots(text: str) -> set[tuple[int, int]]:
    """(column, row) of every braille dot, in dots, by the numbering of the Unicode chart: dots 1 2 3 7 left, 4 5 6 8 right."""
    places = {1: (0, 0), 2: (0, 1), 3: (0, 2), 7: (0, 3), 4: (1, 0), 5: (1, 1), 6: (1, 2), 8: (1, 3)}
    return {
        (2 * x + places[n][0], 4 * y + places[n][1])
        for y, line in enumerate(text.split("\n")[:12])
        for x, character in enumerate(line[10:])
        if "⠀" <= character <= "⣿"
        for n in range(1, 9)
        if ord(character) - 0x2800 & 1 << (n - 1)
    }


def test_the_chart_fits_its_width_and_needs_no_colour() -> None:
    for width in (50, 80, 200):
        lines = loss_chart(a_curve(), width=width).plain.split("\n")
        assert max(map(len, lines)) <= min(width, 100)
    assert "◆" in loss_chart(a_curve(), width=80).plain
    assert "training 1.0" in loss_chart(a_curve(), width=80).plain
    assert "validation 1.90" in loss_chart(a_curve(), width=80).plain
    assert "best: 1.500 at step 60, kept" in loss_chart(a_curve(), width=80).plain


def test_the_training_line_is_where_the_losses_are() -> None:
    """A straight fall is a straight line of dots, without a gap, from the top left to the bottom right."""
    found = dots(loss_chart(replace(a_curve(), points=()), width=80).plain)
    columns = {x for x, _ in found}
    assert columns >= set(range(1, 104))
    for x, y in found:
        assert abs(y - (2 + x / 105 * 43)) <= 2.5  # 48 rows of dots, a margin of 4 % of the span above and below
    assert min(y for _, y in found) < 4
    assert max(y for _, y in found) > 43


def test_the_best_step_stands_in_its_place() -> None:
    lines = loss_chart(replace(a_curve(), steps=()), width=80).plain.split("\n")[:12]
    (row,) = [line for line in lines if "◆" in line]
    assert row.index("◆") - 10 == pytest.approx((60 - 1) / 99 * 53, abs=1)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_very_short_runs_have_a_chart(num_steps: int) -> None:
    points = (CurvePoint(step=num_steps, train_loss=2.0, validation_loss=2.0),)
    steps = tuple((step, 2.0) for step in range(1, num_steps + 1))
    curve = replace(a_curve(), points=points, steps=steps, best_step=num_steps, num_steps=num_steps)
    plain = loss_chart(curve, width=80).plain
    assert "◆" in plain
    assert "training 2.00" in plain
    assert "validation 2.00" in plain
    assert "no step" in loss_chart(replace(curve, points=(), steps=()), width=80).plain


def test_the_table_says_the_same_in_words() -> None:
    assert [line.split() for line in loss_table(a_curve()).split("\n")][:3] == [
        ["step", "training", "validation"],
        ["10", "2.800", "2.000"],
        ["20", "2.600", "1.900"],
    ]
    (best,) = [line for line in loss_table(a_curve()).split("\n") if "best" in line]
    assert best.split() == ["60", "1.800", "1.500", "best,", "kept"]


def test_a_pipe_gets_the_table_with_warnings_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    curve = replace(a_curve(), log=tmp_path / "logs" / "train.jsonl", chart=Path("/elsewhere/loss.svg"))
    screen = curve_screen(curve).plain
    assert not dots(screen)
    assert "best, kept" in screen
    assert "overfitting after step 60" in screen
    assert "log        logs/train.jsonl" in screen
    assert "chart      /elsewhere/loss.svg" in screen
    assert "◆" in curve_screen(curve, as_chart=True).plain


def test_without_validation_rows_there_is_no_best() -> None:
    points = tuple(replace(point, validation_loss=None) for point in a_curve().points)
    curve = replace(a_curve(), points=points, best_step=100)
    for said in (loss_chart(curve, width=80).plain, loss_table(curve)):
        assert "best" not in said
        assert "◆" not in said
    assert math.isclose(curve.points[-1].train_loss, 1.0)
