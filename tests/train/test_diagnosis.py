"""Warnings from made curves; `test_job.py` has them from real runs."""

import dataclasses

import pytest

from tunesmith.records import CurvePoint
from tunesmith.train.diagnosis import RunFacts, diagnose

HEALTHY = RunFacts(
    best_step=20,
    num_steps=300,
    num_planned_steps=300,
    first_loss=3.2,
    num_clipped=30,
    learning_rate=3e-4,
    tokens_per_step=2000.0,
    supervised_per_step=700.0,
    num_rows=400,
    num_truncated_rows=0,
    num_supervised=70_000,
    num_truncated_supervised=0,
    max_length=512,
    context=2048,
    num_validation_rows=40,
)


def curve(*points: tuple[float, float | None]) -> list[CurvePoint]:
    return [CurvePoint(step=10 * (i + 1), train_loss=t, validation_loss=v) for i, (t, v) in enumerate(points)]


def warnings(*points: tuple[float, float | None], **facts: float) -> tuple[str, ...]:
    return diagnose(curve(*points), dataclasses.replace(HEALTHY, **facts))  # type: ignore[arg-type]


FALLING = [(3.0, 3.1), (2.0, 2.2), (1.0, 1.9)]


@pytest.mark.parametrize(
    "points",
    [
        FALLING,
        [(3.0, 3.1), (2.0, 2.0), (1.9, 2.03)],  # a rise within noise
        [(3.0, 3.1), (2.0, 2.2), (2.2, 2.1), (1.9, 2.0)],  # a bump
        [(0.02, 0.03), (0.021, 0.03)],  # had learned it all before
        [(3.0, 3.0)],
    ],
)
def test_a_healthy_run_has_no_warning(points: list[tuple[float, float]]) -> None:
    assert warnings(*points) == ()


def test_overfitting_is_told_with_its_step_and_figures() -> None:
    (warning,) = warnings((3.0, 3.1), (2.0, 2.0), (1.0, 2.5))
    assert warning.startswith("overfitting after step 20")
    assert "2.000 to 2.500" in warning
    assert "fewer epochs" in warning


def test_a_validation_loss_that_rises_with_the_training_loss_is_the_learning_rate_and_no_overfitting() -> None:
    assert warnings((2.0, 2.0), (3.5, 3.5)) == (
        "the learning rate 3.0e-04 looks too high: the training loss rose from 2.000 at step 10 to 3.500 at step 20, above where it "
        "began, and 10% of the gradients were clipped. Set train.learning_rate to 1.0e-04, a third",
    )


def test_a_spike_is_told_even_when_the_run_recovers() -> None:
    (warning,) = warnings((3.0, 3.1), (1.0, 1.2), (1.5, 1.6), (0.9, 1.1))
    assert "rose from 1.000 at step 20 to 1.500 at step 30, and" in warning


def test_a_rise_before_the_first_measurement_is_told_too() -> None:
    (warning,) = warnings((6.0, 6.0), (4.0, 4.0), (2.0, 2.0))
    assert "rose from 3.200 at step 1 to 6.000 at step 10, and" in warning
    assert warnings((4.0, 4.0), (3.0, 3.0), (2.0, 2.0)) == ()  # of a single step's loss


def test_nearly_every_gradient_clipped_and_a_loss_that_ends_higher_is_a_high_rate() -> None:
    points = [(3.0, 3.1), (2.0, 2.2), (2.15, 2.2)]
    assert warnings(*points, num_clipped=200) == ()
    (warning,) = warnings(*points, num_clipped=280)
    assert "93% of the gradients were clipped" in warning
    assert warnings(*FALLING, num_clipped=300) == ()


def test_a_point_that_is_the_mean_of_few_steps_may_jump_further() -> None:
    points = [(3.0, 3.1), (2.0, 2.2), (2.6, 2.2)]
    assert "too high" in warnings(*points, num_steps=30)[0]
    assert warnings(*points, num_steps=12, num_planned_steps=100) == ()
    assert "too high" in warnings((3.0, 3.1), (2.0, 2.2), (9.0, 9.0), num_steps=12)[0]


def test_a_training_loss_that_does_not_fall_is_told() -> None:
    (warning,) = warnings((2.0, 2.0), (2.0, 1.9))
    assert "did not fall (2.000 to 2.000): set train.learning_rate to 9.0e-04, three times as high" in warning


def test_few_steps_are_told_unless_an_early_stop_made_them_few() -> None:
    (warning,) = warnings(*FALLING, num_steps=7, num_planned_steps=7)
    assert warning == (
        "only 7 steps, of 2,000 tokens each: too few to learn much. Raise train.epochs, or lower train.batch_tokens"
    )
    assert warnings((3.0, 3.0), num_steps=1, num_planned_steps=1)[0].startswith("only 1 step,")
    assert warnings(*FALLING, num_steps=7, num_planned_steps=20) == ()


def test_steps_that_learn_from_hardly_a_token_are_told() -> None:
    (warning,) = warnings(*FALLING, supervised_per_step=3.25)
    assert "learns from 3.2 tokens on average, out of 2,000 that it reads" in warning
    assert "train.batch_tokens" in warning


def test_what_was_cut_away_is_told_with_its_share_and_what_can_be_done() -> None:
    (warning,) = warnings(*FALLING, num_truncated_rows=3, num_truncated_supervised=1428)
    assert warning == (
        "3 of 400 rows were cut at 512 tokens, and with them 1,428 trained tokens (2.00%), the ends of answers among them. "
        "Raise train.max_length (now 512)"
    )
    (warning,) = warnings(*FALLING, num_truncated_rows=3, num_truncated_supervised=9, context=512)
    assert warning.endswith("The model reads no more than 512: shorten the rows, or divide them")
    assert warnings(*FALLING, num_truncated_rows=3) == ()  # only what would not have been learned


@pytest.mark.parametrize("points", [[], [(3.0, None), (2.0, None)]])
def test_a_run_without_validation_rows_says_so_and_no_more(points: list[tuple[float, None]]) -> None:
    (warning,) = warnings(*points, num_validation_rows=0)
    assert "no validation rows" in warning


def test_few_validation_rows_are_told() -> None:
    (warning,) = warnings(*FALLING, num_validation_rows=1)
    assert warning.startswith("only 1 validation row: too few")
    assert warnings(*FALLING, num_validation_rows=20) == ()


def test_the_most_serious_comes_first() -> None:
    found = warnings((2.0, 2.0), (9.0, 9.0), num_planned_steps=4, num_truncated_supervised=5, num_validation_rows=2)
    assert [warning.split()[1] for warning in found] == ["learning", "4", "of", "2"]
