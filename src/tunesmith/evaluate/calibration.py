"""What a judge's figures are worth: its habits, and what people would say, as far as they were asked.

A judge that misses some wins and sees others where there are none gives a biased rate. Where people judged some of the same pairs, its
sensitivity and specificity are known, within limits, and the rate is corrected for them; the interval holds both what the pairs leave open
and what the few human labels do.

References: Rogan and Gladen, "Estimating Prevalence from the Results of a Screening Test", American Journal of Epidemiology 107, 1978;
for the interval Lang and Reiczigel, "Confidence Limits for Prevalence of Disease Adjusted for Estimated Sensitivity and Specificity",
Preventive Veterinary Medicine 113, 2014, as Lee et al. use it in "How to Correctly Report LLM-as-a-Judge Evaluations", 2025.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from tunesmith.evaluate.bootstrap import cluster_sums, interval, resample
from tunesmith.evaluate.judging import Choice, Judgement
from tunesmith.evaluate.ranking import Preferred
from tunesmith.records import Score

__all__ = ["MIN_HUMAN_LABELS", "Corrected", "JudgeSheet", "assess_judge", "correct_rate", "majority"]

MIN_HUMAN_LABELS = 20
"""Pairs that people judged too, below which nothing is said of what people would say."""
_Z = 1.959964


class Corrected(NamedTuple):
    """A rate as the judge sees it, and as people would."""

    raw: float
    sensitivity: float
    """Of the pairs of which people say so, the share of which the judge does."""
    specificity: float
    """Of the pairs of which people do not say so, the share of which the judge does not."""
    rate: Score | None
    """0 to 1; None: the judge tells people's yes from their no no better than chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSheet:
    """What is known of a judge on one pair of arms."""

    arms: tuple[str, str]
    num_pairs: int
    num_unparsable: int
    """Pairs of which, in one order or both, no choice could be read."""
    num_torn: int
    """Pairs of which it preferred one answer in one order and the other in the other: counted as ties."""
    depends_on_order: Score | None
    """Share of the pairs that could be read whose verdict is another in the other order, of which one may be a tie; they count as ties."""
    preferred: Mapping[str, int]
    """How often it preferred the first arm's answer, neither, the second's."""
    says_a: Score | None
    """Of its choices of A or B, the share of A. Every pair is seen in both orders, so without a habit it is one half."""
    prefers_longer: Score | None
    """Of the pairs it decided, the share in which it preferred the longer answer."""
    people_prefer_longer: float | None
    """The same of people, on the pairs that both decided; the difference to the next is the judge's own taste for length."""
    prefers_longer_there: float | None
    num_human: int
    """Pairs that people judged too and that could be read."""
    agreement: float | None
    """Share of these on which judge and people say the same."""
    first_wins: Corrected | None
    """Share of pairs of which the first arm's answer is better; None: too few human labels."""
    second_wins: Corrected | None
    verdict: str
    """In one sentence."""

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return asdict(self) | {
            name: None
            if (found := getattr(self, name)) is None
            else found._asdict() | {"rate": found.rate and asdict(found.rate)}
            for name in ("first_wins", "second_wins")
        }


def assess_judge(judgements: Sequence[Judgement], *, human: Mapping[str, Preferred], seed: int) -> JudgeSheet:
    """Measure a judge's habits, and correct its rates by what people said.

    Args:
        judgements: of one pair of arms, in one order of the arms.
        human: row -> what people said of that pair.
        seed: of the resampling behind the intervals.
    """
    arms = judgements[0].pair.arms
    read = [(one, preferred) for one in judgements if (preferred := one.preferred) is not None]
    both = [(one, preferred, human[one.pair.row]) for one, preferred in read if one.pair.row in human]
    decided = [(one, said, told) for one, said, told in both if Preferred.TIE not in {said, told} and _longer(one) is not None]
    corrected = [
        _corrected(read, human=human, wanted=wanted) if len(both) >= MIN_HUMAN_LABELS else None
        for wanted in (Preferred.FIRST, Preferred.SECOND)
    ]
    choices = [(choice is Choice.A, one.pair.cluster) for one, _ in read for choice in one.choices if choice is not Choice.TIE]
    lengths = [(said is longer, one.pair.cluster) for one, said in read if said is not Preferred.TIE and (longer := _longer(one))]
    counts = Counter(preferred for _, preferred in read)
    return JudgeSheet(
        arms=arms,
        num_pairs=len(judgements),
        num_unparsable=len(judgements) - len(read),
        num_torn=sum(one.is_torn for one, _ in read),
        depends_on_order=_share([(one.depends_on_order, one.pair.cluster) for one, _ in read], seed=seed),
        preferred={arms[0]: counts[Preferred.FIRST], "tie": counts[Preferred.TIE], arms[1]: counts[Preferred.SECOND]},
        says_a=_share(choices, seed=seed),
        prefers_longer=_share(lengths, seed=seed),
        people_prefer_longer=_mean([told is _longer(one) for one, _, told in decided]),
        prefers_longer_there=_mean([said is _longer(one) for one, said, _ in decided]),
        num_human=len(both),
        agreement=_mean([said is told for _, said, told in both]),
        first_wins=corrected[0],
        second_wins=corrected[1],
        verdict=_verdict(arms, num_human=len(both), first=corrected[0], second=corrected[1]),
    )


def correct_rate(
    num_yes: float, num_seen: float, *, true_yes: float, num_yes_human: float, true_no: float, num_no_human: float
) -> Corrected | None:
    """Rogan and Gladen's estimate of how often people would say yes, with the interval of Lang and Reiczigel.

    The estimate is (p + q0 - 1) / (q0 + q1 - 1) for the judge's rate p, specificity q0 and sensitivity q1. The interval adds a little to
    every count, as Agresti and Coull do, because with few labels a rate of 100 % is not known to be one.

    Args:
        num_yes: how often the judge said yes.
        num_seen: of how many.
        true_yes: how often it said yes where people did.
        num_yes_human: how often people said yes.
        true_no: how often it said no where people did.
        num_no_human: how often people said no.

    Returns:
        None where people always said the same: then one of the two is not known at all.
    """
    if not num_seen or not num_yes_human or not num_no_human:
        return None
    raw, sensitivity, specificity = num_yes / num_seen, true_yes / num_yes_human, true_no / num_no_human
    if sensitivity + specificity <= 1:
        return Corrected(raw, sensitivity, specificity, None)
    value = min(max((raw + specificity - 1) / (sensitivity + specificity - 1), 0.0), 1.0)
    n, m1, m0 = num_seen + _Z**2, num_yes_human + 2, num_no_human + 2
    p, q1, q0 = (num_yes + _Z**2 / 2) / n, (true_yes + 1) / m1, (true_no + 1) / m0
    skill = q0 + q1 - 1
    if skill <= 0:
        return Corrected(raw, sensitivity, specificity, None)
    middle = (p + q0 - 1) / skill
    of_no, of_yes = (1 - middle) * q0 * (1 - q0) / m0, middle * q1 * (1 - q1) / m1
    spread = p * (1 - p) / n + (1 - middle) * of_no + middle * of_yes
    middle += 2 * _Z**2 * (of_yes - of_no)
    half = _Z * math.sqrt(max(spread, 0.0)) / skill
    low, high = (min(max(bound, 0.0), 1.0) for bound in (middle - half, middle + half))
    return Corrected(raw, sensitivity, specificity, Score(value=value, low=min(low, value), high=max(high, value)))


def majority(said: Sequence[Preferred]) -> Preferred:
    """What most people say of a pair; where as many say one as another, it is a tie."""
    counts = Counter(said).most_common(2)
    return Preferred.TIE if len(counts) == 2 and counts[0][1] == counts[1][1] else counts[0][0]


def _corrected(
    read: Sequence[tuple[Judgement, Preferred]], *, human: Mapping[str, Preferred], wanted: Preferred
) -> Corrected | None:
    """The share of pairs of which people would say what is wanted. Rows of one cluster count as one, which is never too sure."""
    every = [(said is wanted, one.pair.cluster) for one, said in read]
    yes = [(said is wanted, one.pair.cluster) for one, said in read if human.get(one.pair.row) is wanted]
    no = [(said is not wanted, one.pair.cluster) for one, said in read if human.get(one.pair.row, wanted) is not wanted]
    sizes = [len({cluster for _, cluster in group}) for group in (every, yes, no)]
    right = [size * (_mean([is_so for is_so, _ in group]) or 0.0) for size, group in zip(sizes, (every, yes, no), strict=True)]
    return correct_rate(right[0], sizes[0], true_yes=right[1], num_yes_human=sizes[1], true_no=right[2], num_no_human=sizes[2])


def _longer(one: Judgement) -> Preferred | None:
    """Which answer is longer, in characters; None: neither."""
    if not one.pair.longer_by:
        return None
    return Preferred.FIRST if one.pair.longer_by > 0 else Preferred.SECOND


def _share(said: Sequence[tuple[bool, str]], *, seed: int) -> Score | None:
    """The share of yes, with an interval over clusters."""
    if not said:
        return None
    names: dict[str, int] = {}
    clusters = np.array([names.setdefault(cluster, len(names)) for _, cluster in said], dtype=np.int64)
    sums = cluster_sums(np.array([[float(is_so), 1.0] for is_so, _ in said]), clusters=clusters)
    draws = resample(sums, seed=seed)
    bounds = interval(draws[:, 0] / draws[:, 1], num_clusters=len(sums))
    value = float(sums[:, 0].sum() / sums[:, 1].sum())
    return Score(value=value, low=bounds.low, high=bounds.high) if bounds else Score(value=value)


def _mean(said: Sequence[bool]) -> float | None:
    return sum(said) / len(said) if said else None


def _verdict(arms: tuple[str, str], *, num_human: int, first: Corrected | None, second: Corrected | None) -> str:
    if num_human < MIN_HUMAN_LABELS:
        return (
            f"Not calibrated: people have judged {num_human} of the {MIN_HUMAN_LABELS} pairs that it takes, so these figures say nothing "
            "of what people would prefer."
        )
    rates = [found.rate for found in (first, second) if found is not None and found.rate is not None]
    if len(rates) < 2:
        return (
            f"On {num_human} pairs that people judged too, this judge cannot be told from chance, or people always said the same: its "
            "figures say nothing of what people would prefer."
        )
    shares = [f"{arm} on {_percent(rate)}" for arm, rate in zip(arms, rates, strict=True)]
    lows, highs = [rate.low or 0.0 for rate in rates], [1.0 if rate.high is None else rate.high for rate in rates]
    if lows[0] > highs[1] or lows[1] > highs[0]:
        better, worse = (0, 1) if lows[0] > highs[1] else (1, 0)
        return f"By this judge, corrected by {num_human} human labels, people would prefer {shares[better]}, and {shares[worse]}."
    return f"By this judge, corrected by {num_human} human labels, no clear preference: people would prefer {shares[0]}, and {shares[1]}."


def _percent(rate: Score) -> str:
    text = f"{100 * rate.value:.0f} %"
    return text if rate.low is None or rate.high is None else f"{text} [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
