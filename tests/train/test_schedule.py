import math
import warnings
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.train.config import TrainConfig
from tunesmith.train.methods import METHODS
from tunesmith.train.schedule import Pace, default_learning_rate, learning_rate_at, pace_at

SCHEDULES = list(get_args(TrainConfig.model_fields["schedule"].annotation))
LAST = {"cosine": 0.1, "linear": 0.1, "wsd": 0.1, "constant": 1.0, "one_cycle": 1 / 250_000}
"""Share of the peak on the last step."""


def config_of(schedule: str, *, warmup: float | None = 0.1, **optimiser: float) -> TrainConfig:
    return TrainConfig.model_validate({"schedule": schedule, "warmup": warmup, "optimiser": optimiser})


def course(schedule: str, *, total_steps: int, warmup: float | None = 0.1, **optimiser: float) -> list[float]:
    config = config_of(schedule, warmup=warmup, **optimiser)
    return [learning_rate_at(step, total_steps=total_steps, peak=2.0, config=config) for step in range(total_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_the_rate_rises_in_equal_steps_to_the_peak(schedule: str) -> None:
    rates = course(schedule, total_steps=100)
    assert rates[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    assert max(rates) == rates[9] == 2.0


def test_cosine_falls_along_half_a_cosine_to_a_tenth() -> None:
    rates = course("cosine", total_steps=100)
    expected = [0.2 + 1.8 * (1 + math.cos(math.pi * i / 90)) / 2 for i in range(91)]  # Loshchilov and Hutter 2017, eq. 5
    assert rates[9:] == pytest.approx(expected)


def test_cosine_is_pytorchs_own() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=49, eta_min=0.2)
    expected = []
    for _ in range(50):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert course("cosine", total_steps=50, warmup=0.0) == pytest.approx(expected)


def test_linear_falls_in_equal_steps_to_a_tenth() -> None:
    rates = course("linear", total_steps=100)
    assert [a - b for a, b in pairwise(rates[9:])] == pytest.approx([1.8 / 90] * 90)
    assert rates[-1] == pytest.approx(0.2)


def test_constant_stays_at_the_peak() -> None:
    assert course("constant", total_steps=20)[1:] == [2.0] * 19


def test_wsd_stays_at_the_peak_and_falls_in_the_last_steps_along_one_minus_the_square_root() -> None:
    rates = course("wsd", total_steps=100, decay=0.25)
    assert rates[9:75] == [2.0] * 66
    assert rates[75:] == pytest.approx([0.2 + 1.8 * (1 - math.sqrt(i / 25)) for i in range(1, 26)])


def test_wsd_without_a_fall_is_constant_and_with_nothing_else_has_no_plateau() -> None:
    assert course("wsd", total_steps=50, decay=0.0) == course("constant", total_steps=50)
    rates = course("wsd", total_steps=50, decay=1.0)
    assert rates[4] == 2.0
    assert all(a > b for a, b in pairwise(rates[4:]))


@pytest.mark.parametrize(("total_steps", "warmup_steps"), [(100, 30), (100, 2), (10, 3), (7, 6), (1000, 450)])
def test_one_cycle_is_pytorchs_own_in_rate_and_momentum(total_steps: int, warmup_steps: int) -> None:
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0, betas=(0.5, 0.95))
    share = warmup_steps / total_steps
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2.0, total_steps=total_steps, pct_start=share)
    config = config_of("one_cycle", warmup=share)
    for step in range(total_steps):
        (group,) = optimiser.param_groups
        ours = pace_at(step, total_steps=total_steps, peak=2.0, config=config)
        assert ours == pytest.approx((group["lr"], group["betas"][0]), rel=1e-9)
        with warnings.catch_warnings(action="ignore"):  # it wants optimiser.step() first
            if step < total_steps - 1:
                theirs.step()


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_the_momentum_is_the_recipes_and_stays(schedule: str) -> None:
    config = config_of(schedule, beta1=0.7)
    assert {pace_at(step, total_steps=9, peak=2.0, config=config).beta1 for step in range(9)} == {0.7}
    assert pace_at(3, total_steps=9, peak=2.0, config=config) == Pace(
        learning_rate_at(3, total_steps=9, peak=2.0, config=config), 0.7
    )


def test_a_warm_up_that_is_left_out_depends_on_the_schedule() -> None:
    assert course("cosine", total_steps=100, warmup=None) == course("cosine", total_steps=100, warmup=0.05)
    assert course("one_cycle", total_steps=100, warmup=None) == course("one_cycle", total_steps=100, warmup=0.3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(total_steps=st.integers(1, 400), warmup=st.none() | st.floats(0, 1), decay=st.floats(1e-3, 1), peak=st.floats(1e-8, 1))
def test_every_course_stays_above_zero_reaches_its_peak_and_ends_where_it_should(
    schedule: str, total_steps: int, warmup: float | None, decay: float, peak: float
) -> None:
    config = config_of(schedule, warmup=warmup, decay=decay)
    paces = [pace_at(step, total_steps=total_steps, peak=peak, config=config) for step in range(total_steps)]
    rates = [pace.rate for pace in paces]
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert max(rates) == pytest.approx(peak)
    top = rates.index(max(rates))
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    assert rates[-1] == pytest.approx(peak * (LAST[schedule] if total_steps > 1 else 1))
    assert all(0.85 <= pace.beta1 <= 0.95 for pace in paces)


def test_a_product_that_is_a_hair_too_large_adds_no_step() -> None:
    rates = course("linear", total_steps=100, warmup=0.07)  # 0.07 x 100 = 7.000000000000001
    assert rates.index(2.0) == 6


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_wider_model_never_gets_a_larger_default(from_scratch: bool) -> None:
    rates = [default_learning_rate(hidden_size=width, from_scratch=from_scratch) for width in (64, 256, 1024, 4096, 8192)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    assert all(0 < rate <= 0.003 for rate in rates)


@pytest.mark.parametrize("width", [128, 2000, 4096])
def test_the_rule_of_full_fine_tuning(width: int) -> None:
    assert default_learning_rate(hidden_size=width, from_scratch=False) == pytest.approx(5e-5 * (2000 / width) ** 0.78)


@pytest.mark.parametrize("rank", [1, 16, 64])
def test_an_adapter_learns_at_ten_times_the_rate_and_rslora_at_that_over_the_root_of_the_rank(rank: int) -> None:
    factor = METHODS["lora"].rate_factor
    assert factor(TrainConfig.model_validate({"lora": {"rank": rank}})) == 10
    assert factor(TrainConfig.model_validate({"lora": {"rank": rank, "scaling": "rslora"}})) == pytest.approx(10 * rank**-0.5)
    assert METHODS["full"].rate_factor(TrainConfig()) == 1
