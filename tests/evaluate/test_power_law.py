"""The fit against curves whose truth is known, and its interval against how often it holds that truth."""

import numpy as np
import pytest

from tunesmith.evaluate.power_law import fit_power_law, forecast

ROWS = [250, 250, 500, 500, 1000]


@pytest.mark.parametrize(("floor", "scale", "power"), [(0.9, 8.0, 0.5), (0.2, 3.0, 0.3), (0.0, 4.0, 0.25), (1.5, 90.0, 1.0)])
def test_a_curve_without_noise_is_found_again(floor: float, scale: float, power: float) -> None:
    losses = [floor + scale * n**-power for n in ROWS]
    curve = fit_power_law(ROWS, losses)
    for n in [*ROWS, 2000, 4000]:
        assert curve.at(n) == pytest.approx(floor + scale * n**-power, rel=5e-3)


def test_the_fit_is_as_good_as_scipys() -> None:
    from scipy.optimize import curve_fit

    draw = np.random.default_rng(3)
    losses = 0.8 + 9.0 * np.array(ROWS) ** -0.5 + draw.normal(0, 0.01, 5)
    curve = fit_power_law(ROWS, losses.tolist())
    best, _ = curve_fit(lambda n, a, b, c: a + b * n**-c, ROWS, losses, p0=(0.5, 5, 0.5), bounds=([0, 0, 0.05], [9, 1e4, 2]))
    theirs = sum((best[0] + best[1] * n ** -best[2] - loss) ** 2 for n, loss in zip(ROWS, losses, strict=True))
    ours = sum((curve.at(n) - loss) ** 2 for n, loss in zip(ROWS, losses, strict=True))
    assert ours <= theirs * 1.01 + 1e-9


def test_a_loss_that_does_not_fall_gives_no_gain() -> None:
    doubled, gain = forecast(ROWS, [1.0, 1.01, 1.0, 1.02, 1.01], at=2000)
    assert doubled.value == pytest.approx(1.01, abs=0.01)
    assert gain.value == pytest.approx(0, abs=1e-6)
    assert gain.low is not None
    assert gain.low >= 0
    with pytest.raises(ValueError, match="at least two"):
        fit_power_law([5, 5], [1.0, 1.1])


def test_the_forecast_holds_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    truth = 0.9 + 8.0 * 2000**-0.5
    held, num_worlds = 0, 100
    for _ in range(num_worlds):
        losses = 0.9 + 8.0 * np.array(ROWS) ** -0.5 + draw.normal(0, 0.01, 5)
        doubled, _ = forecast(ROWS, losses.tolist(), at=2000)
        assert doubled.low is not None
        assert doubled.high is not None
        held += doubled.low <= truth <= doubled.high
    assert held >= 75  # two repeated sizes tell little of the noise, so somewhat fewer than 95
