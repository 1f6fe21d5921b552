"""The table and the rule, on reports built by hand."""

import math
from dataclasses import replace

import pytest

from tunesmith.evaluate import is_better, table
from tunesmith.evaluate.reading import format_difference
from tunesmith.records import Report, Score


def report_of(**difference: Score) -> Report:
    measured = {metric: Score(value=1.0) for metric in difference}
    scores = {"tuned": measured, "base": measured}
    return Report(id="", kind="evaluation", scores=scores, differences={"tuned": difference}, samples=(), verdict="", num_rows=1)


def test_the_table_shows_base_tuned_and_how_the_difference_reads() -> None:
    scores = {
        "tuned": {"rougeL": Score(value=57.9), "perplexity": Score(value=3.14), "my_score": Score(value=1)},
        "few_shot": {"rougeL": Score(value=20.0)},
        "base": {"rougeL": Score(value=11.4), "perplexity": Score(value=1238.2), "my_score": Score(value=1)},
    }
    differences = {
        "tuned": {
            "rougeL": Score(value=46.5, low=41.2, high=51.7),
            "perplexity": Score(value=-1235.06, low=-1300, high=-1100.4),
        }
    }
    report = Report(id="", kind="evaluation", scores=scores, differences=differences, samples=(), verdict="", num_rows=1)
    assert table(report) == [
        ["metric", "base", "tuned", "few_shot", "difference [95 %]", "reading"],
        ["perplexity", "1,238", "3.14", "", "-1,235 [-1,300, -1,100]", "better"],
        ["ROUGE-L", "11.4", "57.9", "20.0", "+46.5 [41.2, 51.7]", "better"],
        ["my_score", "1.0", "1.0", "", "", "cannot be compared"],
    ]


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (Score(value=0.0), "+0.0"),
        (Score(value=-0.004, low=-0.012, high=0.0003), "-0.0040 [-0.0120, 0.0003]"),
        (Score(value=12.34, low=-1.0, high=20.0), "+12.3 [-1.0, 20.0]"),
        (Score(value=math.inf, low=3.0, high=math.inf), "+inf [3.0, inf]"),
    ],
)
def test_a_difference_is_never_rounded_to_nothing(score: Score, text: str) -> None:
    assert format_difference(score, metric="rougeL") == text


DOWN, UP, UNCLEAR = Score(value=-1, low=-2, high=-0.5), Score(value=1, low=0.5, high=2), Score(value=0, low=-1, high=1)


@pytest.mark.parametrize(
    ("difference", "better"),
    [
        ({"perplexity": DOWN}, True),
        ({"perplexity": UP}, False),
        ({"perplexity": UNCLEAR}, False),
        ({"perplexity": Score(value=-1, low=-2, high=0.0)}, False),
        ({"perplexity": Score(value=-1)}, False),
        ({"perplexity": DOWN, "rougeL": UNCLEAR, "bleu": UP}, True),
        ({"perplexity": DOWN, "rougeL": UP, "facts": DOWN}, False),
        ({"perplexity": UNCLEAR, "rougeL": UP}, False),
        ({"perplexity": UNCLEAR, "bits_per_byte": DOWN}, False),
        ({"bits_per_byte": DOWN}, True),
        ({"rougeL": UP}, True),
        ({"rougeL": UP, "facts": DOWN}, False),
        ({}, False),
    ],
)
def test_the_rule_of_better(difference: dict[str, Score], better: bool) -> None:
    assert is_better(report_of(**difference)) is better


def test_better_answers_do_not_decide_where_likelihoods_cannot_be_compared() -> None:
    made = report_of(rougeL=UP)
    scores = {**made.scores, "tuned": {**made.scores["tuned"], "perplexity": Score(value=math.inf)}}
    assert not is_better(replace(made, scores=scores))
