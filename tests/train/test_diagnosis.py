import pytest

from tunesmith.records import CurvePoint
from tunesmith.train.diagnosis import diagnose


def curve(*points: tuple[float, float | None]) -> list[CurvePoint]:
    return [CurvePoint(step=10 * (i + 1), train_loss=t, validation_loss=v) for i, (t, v) in enumerate(points)]


@pytest.mark.parametrize(
    "points",
    [
        [(3.0, 3.1), (2.0, 2.2), (1.0, 1.9)],
        [(3.0, 3.1), (2.0, 2.0), (1.9, 2.03)],  # a rise within noise
        [(3.0, 3.0)],
    ],
)
def test_a_healthy_run_has_no_warning(points: list[tuple[float, float]]) -> None:
    assert diagnose(curve(*points), best_step=20) == ()


def test_overfitting_is_told_with_its_step_and_figures() -> None:
    (warning,) = diagnose(curve((3.0, 3.1), (2.0, 2.0), (1.0, 2.5)), best_step=20)
    assert warning.startswith("overfitting after step 20")
    assert "2.000 to 2.500" in warning


def test_a_validation_loss_that_rises_with_the_training_loss_is_no_overfitting() -> None:
    (warning,) = diagnose(curve((2.0, 2.0), (2.5, 2.5)), best_step=10)
    assert "did not fall" in warning
    assert "learning_rate" in warning


def test_a_training_loss_that_does_not_fall_is_told() -> None:
    (warning,) = diagnose(curve((2.0, 2.0), (2.0, 1.9)), best_step=20)
    assert "did not fall (2.000 to 2.000)" in warning


@pytest.mark.parametrize("points", [[], [(3.0, None), (2.0, None)]])
def test_a_run_without_validation_rows_says_so_and_no_more(points: list[tuple[float, None]]) -> None:
    (warning,) = diagnose(curve(*points), best_step=20)
    assert "no validation rows" in warning
