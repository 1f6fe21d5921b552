"""What people and models prefer, for the terminal."""

from __future__ import annotations

import math

from rich.text import Text

from tunesmith.evaluate.calibration import Corrected, JudgeSheet
from tunesmith.evaluate.ranking import Duel, Ranking
from tunesmith.evaluate.side_habit import SideHabit
from tunesmith.pipeline.preferences import ModelJudge, Preferences
from tunesmith.records import Score
from tunesmith.terminal.annotation import agreement_screen
from tunesmith.terminal.layout import columns, field

__all__ = ["preferences_screen"]


def preferences_screen(found: Preferences) -> Text:
    """The verdict, a line for each two arms, strengths where there are several, agreement, and each model that judged."""
    parts: list[Text] = [field("people", found.verdict)]
    if found.ranking is not None:
        parts.append(Text(columns(_duels(found.ranking))))
        if found.num_both_bad:
            parts.append(field("", f"{found.num_both_bad:,} of the ties: both answers are bad"))
        if len(found.ranking.strengths) > 2:
            parts.append(Text(columns(_strengths(found.ranking))))
    parts += [field("sides", _side(one)) for one in found.sides if one.is_clear]
    if found.agreement is not None and len(found.agreement.annotators) > 1:
        parts.append(Text(_indented(agreement_screen({"agreement": found.agreement}))))
    for one in found.models:
        parts += _model(one)
    if found.unreadable:
        parts.append(
            field("left out", f"{len(found.unreadable):,} lines that are no decisions; the first is {found.unreadable[0].source}")
        )
    return Text("\n").join(parts)


def _duels(ranking: Ranking) -> list[list[str]]:
    rows = [["pair", "win rate [95 %]", "at equal length", "won", "tied", "lost"]]
    for duel in ranking.duels:
        counts = [f"{duel.wins:,}", f"{duel.ties:,}", f"{duel.losses:,}"]
        rows.append([f"{duel.first} : {duel.second}", _share(duel.win_rate), _equal_length(duel), *counts])
    return rows


def _strengths(ranking: Ranking) -> list[list[str]]:
    rows = [["Bradley-Terry", f"log odds against {ranking.baseline} [95 %]"]]
    for arm, score in ranking.strengths.items():
        bounds = (
            ""
            if score.low is None or score.high is None or arm == ranking.baseline
            else f" [{score.low:+.2f}, {score.high:+.2f}]"
        )
        value = "cannot be told" if math.isnan(score.value) else f"{score.value:+.2f}"
        rows.append([arm, "0" if arm == ranking.baseline else value + bounds])
    return rows


def _model(one: ModelJudge) -> list[Text]:
    sheet = one.sheet
    rows = [[f"{sheet.arms[0]} : {sheet.arms[1]}", "as the judge sees it", "sensitivity", "specificity", "as people would"]]
    if one.duel is not None:
        rows.append(["win rate, ties half", _share(one.duel.win_rate), "", "", ""])
        rows.append(["at equal length", _equal_length(one.duel), "", "", ""])
    rows += [
        _corrected(f"{arm} better", found) for arm, found in zip(sheet.arms, (sheet.first_wins, sheet.second_wins), strict=True)
    ]
    return [
        Text(""),
        field("model", one.name),
        Text(columns(rows)),
        field("habits", _habits(sheet)),
        field("verdict", sheet.verdict),
    ]


def _corrected(label: str, found: Corrected | None) -> list[str]:
    if found is None:
        return [label, "", "", "", "not calibrated"]
    rate = "cannot be told" if found.rate is None else _share(found.rate)
    return [label, f"{100 * found.raw:.0f} %", f"{100 * found.sensitivity:.0f} %", f"{100 * found.specificity:.0f} %", rate]


def _habits(sheet: JudgeSheet) -> str:
    said = [f"{sheet.num_pairs:,} pairs in both orders", *_of_order(sheet)]
    if sheet.num_unparsable:
        said.append(f"{sheet.num_unparsable:,} could not be read")
    if sheet.says_a is not None:
        said.append(f"chose what it saw first in {_share(sheet.says_a)} (50 % has no habit)")
    if sheet.prefers_longer is not None:
        longer = f"the longer answer in {_share(sheet.prefers_longer)}"
        if sheet.people_prefer_longer is not None and sheet.prefers_longer_there is not None:
            own, people = sheet.prefers_longer_there, sheet.people_prefer_longer
            longer += f"; where people decided too, in {100 * own:.0f} %, they in {100 * people:.0f} %"
        said.append(longer)
    if sheet.agreement is not None:
        said.append(f"says what people say on {100 * sheet.agreement:.0f} % of {sheet.num_human:,}")
    return " · ".join(said)


def _of_order(sheet: JudgeSheet) -> list[str]:
    if sheet.depends_on_order is None:
        return []
    return [
        f"another verdict in the other order on {_share(sheet.depends_on_order)} (ties), on {sheet.num_torn:,} for the other arm"
    ]


def _equal_length(duel: Duel) -> str:
    if duel.equal_length is None:
        return ""
    return "cannot be told" if duel.equal_length.rate is None else _share(duel.equal_length.rate)


def _side(one: SideHabit) -> str:
    side = "left" if one.share.value > 0.5 else "right"
    return (
        f"{one.by} leans to the {side}: chose the left answer in {_share(one.share)} of {one.num_decided:,}. Sides are drawn: no arm "
        "gains, but win rates come nearer to 50 %"
    )


def _share(score: Score) -> str:
    text = f"{100 * score.value:.0f} %"
    return text if score.low is None or score.high is None else f"{text} [{100 * score.low:.0f}, {100 * score.high:.0f}]"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
