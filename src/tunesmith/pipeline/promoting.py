"""Which version answers: the rule by which a new one becomes champion."""

from __future__ import annotations

from tunesmith.evaluate import is_better
from tunesmith.records import ModelVersion, Report
from tunesmith.store import Store

__all__ = ["promote"]


def promote(version: ModelVersion, report: Report | None, *, policy: str, store: Store) -> None:
    """Make a version champion, once: a version that somebody has since replaced is not put back by running its recipe again."""
    if policy == "never" or any(
        event.kind == "pointed" and event.version == version.number for event in store.ledger.events(version.name)
    ):
        return
    champion = store.ledger.deployment(version.name, "champion")
    if policy == "if_better" and not _deserves(report, has_champion=champion is not None):
        return
    store.ledger.point(
        version.name,
        alias="champion",
        version=version.number,
        because=version.reports,
        actor="run",
        expected_generation=champion.generation if champion else None,
    )


def _deserves(report: Report | None, *, has_champion: bool) -> bool:
    """Better than its base, and on the same rows at least as likely as the champion."""
    if report is None:
        return not has_champion
    if "base" in report.scores and not is_better(report):
        return False
    if not has_champion:
        return True
    rival = report.scores.get("champion", {}).get("perplexity")
    return rival is not None and report.scores["tuned"]["perplexity"].value <= rival.value
