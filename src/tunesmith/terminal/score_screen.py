"""What `score` found: each figure with its interval, and beside it another system's and the difference."""

from __future__ import annotations

from rich.text import Text

from tunesmith.evaluate.bootstrap import MIN_CLUSTERS
from tunesmith.evaluate.reading import direction, format_difference, format_figure, reading_of
from tunesmith.evaluate.scoring import Scored
from tunesmith.records import Score
from tunesmith.terminal.layout import columns, field, on_one_line

__all__ = ["score_screen"]

_WIDEST_LABEL = 40


def score_screen(found: Scored) -> Text:
    """A table, a row for each figure."""
    header = ["metric", "value", "[95 %]"] + (["other", "difference [95 %]", "p, corrected", "reading"] if found.against else [])
    rows = [header]
    for metric, score in found.metrics.items():
        row = [_plain(reading_of(metric).label), format_figure(score, metric=metric), _interval(score, metric=metric)]
        if found.against:
            other, difference = found.against.get(metric), found.differences.get(metric)
            row.append(format_figure(other, metric=metric) if other else "")
            row += (
                [
                    format_difference(difference, metric=metric),
                    "" if difference.p_adjusted is None else f"{difference.p_adjusted:.3f}",
                    direction(difference, metric=metric),
                ]
                if difference
                else ["", "", "cannot be compared"]
            )
        rows.append(row)
    where = f"{found.num_rows:,} in {found.num_clusters:,} clusters"
    if found.num_clusters < MIN_CLUSTERS:
        where += f"; intervals need {MIN_CLUSTERS} clusters"
    return Text("\n").join([Text(columns(rows)), Text(""), field("rows", where)])


def _plain(label: str) -> str:
    """A label that may hold a class's name, on one line; what would steer the terminal is shown as its code."""
    shown = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in " ".join(label.split()))
    return on_one_line("".join(shown), limit=_WIDEST_LABEL)


def _interval(score: Score, *, metric: str) -> str:
    if score.low is None or score.high is None:
        return ""
    low, high = (format_figure(Score(value=bound), metric=metric) for bound in (score.low, score.high))
    return f"[{low}, {high}]"
