"""Which version answers: the rule by which a new one becomes champion, and the reasons where it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunesmith.evaluate import is_better
from tunesmith.evaluate.reading import format_difference, headlines, reading_of
from tunesmith.pipeline.policy import Policy, policy_of
from tunesmith.records import ModelVersion, Report, Score
from tunesmith.store import Store

__all__ = ["CHAMPION", "promote", "reasons_against"]

CHAMPION = "champion"
"""Of a report's details: the differences between the new version and the champion, paired."""
_LIKELIHOODS = ("perplexity", "bits_per_byte")


def promote(version: ModelVersion, report: Report | None, *, policy: str, store: Store) -> tuple[str, ...]:
    """Make a version champion, once: a version that somebody has since replaced is not put back by running its recipe again.

    Args:
        version: the new one.
        report: how it was judged; None where there were no test rows.
        policy: `promote` of the recipe.
        store: the workspace.

    Returns:
        The reasons for which the rule refuses it; none where it is champion, was before, or nobody wants it to be.
    """
    wanted = policy_of(policy)
    if wanted.rule in {"never", "manual"} or any(
        event.kind == "pointed" and event.version == version.number for event in store.ledger.events(version.name)
    ):
        return ()
    champion = store.ledger.deployment(version.name, "champion")
    if reasons := reasons_against(report, policy=wanted, has_champion=champion is not None):
        return reasons
    store.ledger.point(
        version.name,
        alias="champion",
        version=version.number,
        because=version.reports,
        actor="run",
        expected_generation=champion.generation if champion else None,
    )
    return ()


def reasons_against(report: Report | None, *, policy: Policy, has_champion: bool) -> tuple[str, ...]:
    """Why a rule does not make a version champion: sentences with figures and intervals; none where it does."""
    if policy.rule == "always":
        return ()
    if policy.rule in {"never", "manual"}:
        return (f"`promote` is {policy.rule}",)
    if report is None:
        return ("there are no test rows to compare it with the champion on",) if has_champion else ()
    found = list(report.details.get("safety", {}).get("failed", ()))
    if has_champion and "champion" not in report.scores:
        found.append("it was not compared with the champion")
    elif policy.rule == "if_better":
        found += _not_better(report, has_champion=has_champion)
    else:
        found += _perhaps_worse(report, margin=policy.margin)
    return tuple(found)


def _not_better(report: Report, *, has_champion: bool) -> Iterator[str]:
    """Better than its base, and on the same rows at least as likely as the champion."""
    if "base" in report.scores and not is_better(report):
        yield report.verdict.rstrip(".")
    if not has_champion:
        return
    rival, own = (report.scores[arm].get("perplexity") for arm in ("champion", "tuned"))
    if rival is None or own is None:
        yield "without `perplexity` among evaluate.metrics it cannot be compared with the champion"
    elif own.value > rival.value:
        yield f"perplexity {own.value:.2f} is above the champion's {rival.value:.2f}"


def _perhaps_worse(report: Report, *, margin: float) -> Iterator[str]:
    """Leading metrics whose interval reaches further down than the margin, beside the champion, else beside the base."""
    rival = "champion" if "champion" in report.scores else report.baseline
    if rival not in report.scores:
        return
    differences = _differences(report, rival=rival)
    leading = headlines(differences)
    if "perplexity" not in leading and "bits_per_byte" in differences:
        leading = ["bits_per_byte", *leading]
    if not leading:
        yield f"nothing was measured that compares it with the {rival}"
    for metric in leading:
        unit = "percent" if metric in _LIKELIHOODS else "points"
        difference = differences[metric]
        shown = f"{reading_of(metric).label} {format_difference(difference, metric=metric)} beside the {rival}"
        worst = _worst(difference, metric=metric, rival=report.scores[rival][metric])
        if worst is None:
            yield f"{shown}: too few rows for an interval"
        elif not worst < margin:  # nor where it is no number
            yield f"{shown}: it may be worse by {worst:.2f} {unit}, and the margin is {margin:g}"


def _worst(difference: Score, *, metric: str, rival: Score) -> float | None:
    """By how much the interval lets a metric be worse; below 0 where it is better for certain. None without an interval."""
    bound = difference.high if reading_of(metric).lower_is_better else difference.low
    if bound is None:
        return None
    worse = bound if reading_of(metric).lower_is_better else -bound
    return 100 * worse / rival.value if metric in _LIKELIHOODS else worse


def _differences(report: Report, *, rival: str) -> Mapping[str, Score]:
    if rival == report.baseline:
        return report.differences.get(report.subject, {})
    kept: Mapping[str, Mapping[str, float | str]] = report.details.get(CHAMPION, {}).get("differences", {})
    return {metric: Score(**{name: float(number) for name, number in score.items()}) for metric, score in kept.items()}
