import math
from itertools import pairwise

import pytest

from tunesmith.train.config import TrainConfig
from tunesmith.train.schedule import default_learning_rate, learning_rate_at


def course(schedule: str, *, total_steps: int, warmup: float = 0.1) -> list[float]:
    config = TrainConfig.model_validate({"schedule": schedule, "warmup": warmup})
    return [learning_rate_at(step, total_steps=total_steps, peak=2.0, config=config) for step in range(total_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_rises_in_equal_steps_to_the_peak(schedule: str) -> None:
    rates = course(schedule, total_steps=100)
    assert rates[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    assert max(rates) == rates[10] == 2.0


def test_cosine_falls_along_half_a_cosine_to_a_tenth() -> None:
    rates = course("cosine", total_steps=100)
    expected = [2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * i / 89)) / 2) for i in range(90)]  # Loshchilov and Hutter 2017
    assert rates[10:] == pytest.approx(expected)
    assert rates[-1] == pytest.approx(0.2)


def test_linear_falls_in_equal_steps_to_a_tenth() -> None:
    rates = course("linear", total_steps=100)
    falls = [a - b for a, b in pairwise(rates[10:])]
    assert falls == pytest.approx([1.8 / 89] * 89)
    assert rates[-1] == pytest.approx(0.2)


def test_constant_stays_at_the_peak() -> None:
    assert course("constant", total_steps=20)[2:] == [2.0] * 18


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
def test_short_runs_have_a_rate_above_zero_at_every_step_and_reach_the_peak(
    schedule: str, warmup: float, total_steps: int
) -> None:
    rates = course(schedule, total_steps=total_steps, warmup=warmup)
    assert all(0 < rate <= 2.0 for rate in rates)
    assert max(rates) == 2.0


@pytest.mark.parametrize(("method", "from_scratch"), [("lora", False), ("full", False), ("full", True)])
def test_a_wider_model_never_gets_a_larger_default(method: str, from_scratch: bool) -> None:
    config = TrainConfig.model_validate({"method": method})
    rates = [default_learning_rate(config, hidden_size=width, from_scratch=from_scratch) for width in (64, 256, 1024, 4096, 8192)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    assert all(0 < rate <= 0.01 for rate in rates)


@pytest.mark.parametrize("width", [128, 2000, 4096])
def test_an_adapter_learns_at_ten_times_the_rate_of_full_fine_tuning(width: int) -> None:
    lora, full = (
        default_learning_rate(TrainConfig.model_validate({"method": method}), hidden_size=width, from_scratch=False)
        for method in ("lora", "full")
    )
    assert lora == pytest.approx(10 * full)
    assert full == pytest.approx(5e-5 * (2000 / width) ** 0.78)
