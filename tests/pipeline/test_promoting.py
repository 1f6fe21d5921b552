"""Promotion by the report's verdict: each rule, with the figures that speak against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from tunesmith.pipeline.policy import Policy, policy_of
from tunesmith.pipeline.promoting import reasons_against
from tunesmith.records import Report, Score

BETTER = Policy("if_better")


def report(
    *,
    perplexity: Score | None = None,
    rouge: Score | None = None,
    champion: Mapping[str, Mapping[str, float]] | None = None,
    champion_perplexity: float = 10.0,
    failed: tuple[str, ...] = (),
) -> Report:
    """Base and tuned (and champion), of perplexity 10 and ROUGE-L 50 before, with these differences."""
    differences = {name: score for name, score in (("perplexity", perplexity), ("rougeL", rouge)) if score is not None}
    before = {"perplexity": Score(value=10.0), "rougeL": Score(value=50.0)}
    after = {name: Score(value=before[name].value + score.value) for name, score in differences.items()}
    scores = {"base": before, "tuned": after}
    details: dict[str, Any] = {"safety": {"failed": list(failed)}}
    if champion is not None:
        scores["champion"] = {"perplexity": Score(value=champion_perplexity), "rougeL": Score(value=50.0)}
        details["champion"] = {"differences": champion}
    return Report(
        id="", kind="evaluation", scores=scores, differences={"tuned": differences}, samples=(), verdict="Not better than the base.",
        num_rows=50, details=details,
    )  # fmt: skip


CLEAR_WIN = {"perplexity": Score(value=-4.0, low=-5.0, high=-3.0), "rouge": Score(value=8.0, low=5.0, high=11.0)}


@pytest.mark.parametrize(
    ("text", "rule", "margin"),
    [
        ("if_better", "if_better", 0.0),
        ("if_not_worse(1.0)", "if_not_worse", 1.0),
        (" if_not_worse( 2 ) ", "if_not_worse", 2.0),
        ("if_not_worse(0)", "if_not_worse", 0.0),
        ("manual", "manual", 0.0),
        ("always", "always", 0.0),
        ("never", "never", 0.0),
    ],
)
def test_rules_are_read_as_they_are_written(text: str, rule: str, margin: float) -> None:
    assert policy_of(text) == (rule, margin)


@pytest.mark.parametrize("text", ["if_not_worse", "if_not_worse()", "if_not_worse(-1)", "if_not_worse(x)", "if_not_worse(1e9)"])
def test_a_margin_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"needs a margin of 0 or more, in points: if_not_worse\(1\.0\)"):
        policy_of(text)


def test_a_clearly_better_version_is_promoted() -> None:
    assert reasons_against(report(**CLEAR_WIN), policy=BETTER, has_champion=False) == ()


def test_the_verdict_is_the_reason_against_one_that_is_not_better() -> None:
    found = report(perplexity=Score(value=-1.0, low=-2.0, high=0.5))
    assert reasons_against(found, policy=BETTER, has_champion=False) == ("Not better than the base",)


def test_a_failed_check_stands_against_a_better_version_and_one_that_is_not_worse() -> None:
    found = report(**CLEAR_WIN, failed=("1 prompt of evaluate.must_not_break: p.jsonl:3 is answered wrongly now",))
    for policy in (BETTER, Policy("if_not_worse", 5.0)):
        (reason,) = reasons_against(found, policy=policy, has_champion=False)
        assert "p.jsonl:3" in reason
    assert reasons_against(found, policy=Policy("always"), has_champion=False) == ()


def test_a_version_less_likely_than_the_champion_is_refused_with_both_figures() -> None:
    found = report(**CLEAR_WIN, champion={}, champion_perplexity=5.5)
    assert reasons_against(found, policy=BETTER, has_champion=True) == ("perplexity 6.00 is above the champion's 5.50",)
    assert reasons_against(report(**CLEAR_WIN, champion={}), policy=BETTER, has_champion=True) == ()


@pytest.mark.parametrize(
    ("low", "margin", "is_promoted"),
    [(-0.9, 1.0, True), (-1.0, 1.0, False), (-1.1, 1.0, False), (0.1, 0.0, True), (0.0, 0.0, False)],
)
def test_not_worse_asks_the_lower_bound_of_a_score(low: float, margin: float, *, is_promoted: bool) -> None:
    found = report(rouge=Score(value=0.5, low=low, high=2.0))
    reasons = reasons_against(found, policy=Policy("if_not_worse", margin), has_champion=False)
    assert (reasons == ()) is is_promoted


@pytest.mark.parametrize(
    ("high", "margin", "is_promoted"), [(0.09, 1.0, True), (0.1, 1.0, False), (0.3, 2.0, False), (0.3, 3.1, True)]
)
def test_perplexity_may_rise_by_percent(high: float, margin: float, *, is_promoted: bool) -> None:
    """The rival's perplexity is 10, so 0.1 is 1 %."""
    found = report(perplexity=Score(value=-0.1, low=-0.3, high=high))
    reasons = reasons_against(found, policy=Policy("if_not_worse", margin), has_champion=False)
    assert (reasons == ()) is is_promoted


def test_a_refusal_names_metric_interval_and_margin() -> None:
    found = report(perplexity=Score(value=-1.0, low=-2.0, high=-0.5), rouge=Score(value=-0.4, low=-1.9, high=1.1))
    assert reasons_against(found, policy=Policy("if_not_worse", 1.0), has_champion=False) == (
        "ROUGE-L -0.4 [-1.9, 1.1] beside the base: it may be worse by 1.90 points, and the margin is 1",
    )


def test_beside_a_champion_its_own_paired_differences_count() -> None:
    """Far better than the base, and perhaps worse than the champion."""
    found = report(**CLEAR_WIN, champion={"rougeL": {"value": -3.0, "low": -6.0, "high": 0.0}})
    (reason,) = reasons_against(found, policy=Policy("if_not_worse", 1.0), has_champion=True)
    assert "beside the champion" in reason
    assert "worse by 6.00 points" in reason
    found = report(**CLEAR_WIN, champion={"rougeL": {"value": 0.2, "low": -0.5, "high": 0.9}})
    assert reasons_against(found, policy=Policy("if_not_worse", 1.0), has_champion=True) == ()


def test_too_few_rows_and_no_comparison_are_no_proof_of_not_being_worse() -> None:
    found = report(rouge=Score(value=3.0))
    (reason,) = reasons_against(found, policy=Policy("if_not_worse", 9.0), has_champion=False)
    assert "too few rows for an interval" in reason
    (reason,) = reasons_against(report(**CLEAR_WIN), policy=Policy("if_not_worse", 9.0), has_champion=True)
    assert reason == "it was not compared with the champion"
    (reason,) = reasons_against(report(), policy=Policy("if_not_worse", 9.0), has_champion=False)
    assert "nothing was measured" in reason


def test_an_infinite_perplexity_is_never_not_worse() -> None:
    found = report(perplexity=Score(value=math.inf, low=math.inf, high=math.inf))
    assert reasons_against(found, policy=Policy("if_not_worse", 99.0), has_champion=False) != ()
    for kept in ({"value": "inf", "low": "inf", "high": "inf"}, {"value": "nan", "low": "nan", "high": "nan"}):
        found = report(**CLEAR_WIN, champion={"perplexity": kept})  # type: ignore[dict-item]
        assert reasons_against(found, policy=Policy("if_not_worse", 99.0), has_champion=True) != ()


def test_without_test_rows_a_version_takes_no_champions_place() -> None:
    for policy in (BETTER, Policy("if_not_worse", 1.0)):
        assert reasons_against(None, policy=policy, has_champion=False) == ()
        (reason,) = reasons_against(None, policy=policy, has_champion=True)
        assert "no test rows" in reason
