"""What people and models prefer of a version's answers, from all that was judged so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from tunesmith.data.agreement import Agreement, measure_agreement
from tunesmith.data.annotations import Annotation, AnnotationLog, Annotations, Kind, Verdict, ending_of
from tunesmith.data.rows import plain_dropped
from tunesmith.errors import NotFound
from tunesmith.evaluate.calibration import JudgeSheet, assess_judge, majority
from tunesmith.evaluate.judging import Judgement, comparisons_of
from tunesmith.evaluate.ranking import Comparison, Duel, Preferred, Ranking, rank_arms
from tunesmith.evaluate.side_habit import SideHabit, measure_sides
from tunesmith.pipeline.judging import human_logs, model_logs, read_judgements
from tunesmith.records import Dropped
from tunesmith.store import Store

__all__ = ["ModelJudge", "Preferences", "preference_in_words", "read_preferences"]

_PREFERRED = {
    Verdict.CHOSEN: Preferred.FIRST,
    Verdict.REJECTED: Preferred.SECOND,
    Verdict.TIE: Preferred.TIE,
    Verdict.NEITHER: Preferred.TIE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJudge:
    """What a model prefers, of one pair of arms."""

    name: str
    sheet: JudgeSheet
    duel: Duel | None
    """Its win rate as it is, not corrected by anything; None: nothing that it said could be read."""
    agreement: Agreement | None
    """With what most people say of each pair; None: no pair in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """All that is known of a version."""

    ref: str
    verdict: str
    """What people prefer, in a sentence for each other arm."""
    ranking: Ranking | None
    """By people; None: nobody has preferred anything yet."""
    num_both_bad: int
    """Judgements that both answers are bad; they are among the ties."""
    agreement: Agreement | None
    """Between people."""
    sides: tuple[SideHabit, ...]
    """How often people chose the left answer; empty where nobody chose a side, or judgements were made before sides were kept."""
    models: tuple[ModelJudge, ...]
    unreadable: tuple[Dropped, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "ref": self.ref,
            "verdict": self.verdict,
            "ranking": self.ranking and self.ranking.as_json(),
            "num_both_bad": self.num_both_bad,
            "agreement": self.agreement and self.agreement.as_json(),
            "sides": [one.as_json() for one in self.sides],
            "models": [
                {
                    "name": one.name,
                    "sheet": one.sheet.as_json(),
                    "duel": one.duel and asdict(one.duel),
                    "agreement": one.agreement and one.agreement.as_json(),
                }
                for one in self.models
            ],
            "unreadable": [plain_dropped(row) for row in self.unreadable],
        }


class _Said(NamedTuple):
    """What a person says of a pair."""

    by: str
    row: str
    verdict: Verdict
    arms: tuple[str, str]
    cluster: str
    longer_by: int
    side: str

    @property
    def label(self) -> str:
        """For agreement: the arm preferred, or which kind of neither."""
        named = {Verdict.CHOSEN: self.arms[0], Verdict.REJECTED: self.arms[1], Verdict.TIE: "tie", Verdict.NEITHER: "both bad"}
        return named[self.verdict]


def read_preferences(ref: str, *, store: Store, against: str | None = None, seed: int = 0) -> Preferences:
    """Read what was judged of a version.

    Args:
        ref: the version.
        store: where it is.
        against: only against this arm or version; None: against all.
        seed: of the resampling behind the intervals.

    Raises:
        NotFound: there is no such version, or nobody has judged it.
    """
    version = store.ledger.version(ref)
    said, unreadable = _of_people(version.ref, store=store)
    judged = read_judgements(model_logs(version.ref, store=store))
    against = against and _as_judged(against, said=said, store=store)
    wanted = [one for one in said if against in {None, one.arms[1]}]
    models = {
        (name, arm): [one for one in rows if one.pair.arms[1] == arm]
        for name, rows in judged.judgements.items()
        for arm in dict.fromkeys(one.pair.arms[1] for one in rows)
        if against in {None, arm}
    }
    if not wanted and not models:
        what = version.ref if against is None else f"{version.ref} against {against}"
        option = "" if against is None else f" --against {against}"
        raise NotFound(f"nobody has judged {what} yet. `tunesmith judge {version.ref}{option}` opens the page")
    ranking = None
    if wanted:
        comparisons = [Comparison(*one.arms, _PREFERRED[one.verdict], one.cluster, one.longer_by) for one in wanted]
        # Every pair has the version in it, so whichever other arm is the baseline, all are compared with it.
        baseline = "base" if any(one.arms[1] == "base" for one in wanted) else wanted[0].arms[1]
        ranking = rank_arms(comparisons, baseline=baseline, seed=seed, subject=version.ref)
    by_row: dict[str, list[Preferred]] = {}
    for one in wanted:
        by_row.setdefault(one.row, []).append(_PREFERRED[one.verdict])
    human = {row: majority(votes) for row, votes in by_row.items()}
    return Preferences(
        ref=version.ref,
        verdict=preference_in_words(ranking),
        ranking=ranking,
        num_both_bad=sum(one.verdict is Verdict.NEITHER for one in wanted),
        agreement=measure_agreement(_ratings(wanted)) if wanted else None,
        sides=measure_sides([(one.by, one.side == "left") for one in wanted if one.side in {"left", "right"}]),
        models=tuple(_model(name, rows, human=human, seed=seed) for (name, _), rows in models.items()),
        unreadable=(*unreadable, *judged.unreadable),
    )


def preference_in_words(ranking: Ranking | None) -> str:
    """A sentence for each two arms that were compared."""
    sentences = [_in_words(duel) for duel in ranking.duels] if ranking else []
    return " ".join(sentences) or "Nobody has preferred anything yet."


def _in_words(duel: Duel) -> str:
    first, second, rate = duel.first, duel.second, duel.win_rate
    share = f"{100 * rate.value:.0f} %"
    if rate.low is None or rate.high is None:
        what = f"Too few judgements to tell {first} from {second}"
    else:
        share += f" [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
        what = f"No clear preference between {first} and {second}"
        if rate.low > 0.5:
            what = f"People prefer {first} to {second}"
        elif rate.high < 0.5:
            what = f"People prefer {second} to {first}"
    num = duel.wins + duel.ties + duel.losses
    return f"{what}: {first} wins {share} of {num:,} judgements in {duel.num_clusters:,} clusters.{_of_length(duel)}"


def _of_length(duel: Duel) -> str:
    """What is left of a preference at equal length; a sentence, or nothing where nothing is known of lengths."""
    if (found := duel.equal_length) is None or not duel.wins + duel.losses:
        return ""
    longer = duel.first if found.longer_by > 0 else duel.second
    if found.rate is None:
        return f" All answers of {longer} are the longer ones, so what people would prefer at equal length cannot be told."
    if found.rate.low is None or found.rate.high is None:
        return ""
    text = (
        f" At equal length it would win {100 * found.rate.value:.0f} % [{100 * found.rate.low:.0f}, {100 * found.rate.high:.0f}]"
    )
    raw = duel.win_rate
    is_clear = raw.low is not None and raw.high is not None and not raw.low <= 0.5 <= raw.high
    if is_clear and found.rate.low <= 0.5 <= found.rate.high:
        text += f": it may be length alone that people prefer (answers of {longer} are longer by {abs(found.longer_by):,.0f} characters)"
    return f"{text}."


def _of_people(ref: str, *, store: Store) -> tuple[list[_Said], list[Dropped]]:
    said: list[_Said] = []
    unreadable: list[Dropped] = []
    for path in human_logs(ref, store=store):
        annotations = Annotations()
        for entry in AnnotationLog(path).read_new():
            if isinstance(entry, Dropped):
                unreadable.append(entry)
            else:
                annotations.add(entry)
        for row in annotations.rows():
            for by, kinds in annotations.about(row).items():
                if (found := _said(kinds.get(Kind.RANK), by=by, row=row)) is not None:
                    said.append(found)
    return said, unreadable


def _said(entry: Annotation | None, *, by: str, row: str) -> _Said | None:
    tags = entry.record.tags if entry is not None and entry.record is not None else {}
    if entry is None or entry.record is None or not {"arm", "against"} <= tags.keys() or entry.value not in set(Verdict):
        return None
    verdict, record = Verdict(entry.value), entry.record
    kept, other = (sum(len(turn.content) for turn in turns) for turns in (record.messages[ending_of(record) :], record.rejected))
    longer_by = other - kept if verdict is Verdict.REJECTED else kept - other  # a decision puts the better answer first
    return _Said(by, row, verdict, (tags["arm"], tags["against"]), record.cluster or row, longer_by, entry.side)


def _as_judged(against: str, *, said: list[_Said], store: Store) -> str:
    """The name under which an arm was judged: a version's own, where it was called by another."""
    if any(one.arms[1] == against for one in said):
        return against
    try:
        return store.ledger.version(against).ref
    except NotFound:
        return against  # an arm of the report


def _ratings(said: list[_Said]) -> dict[str, dict[str, str]]:
    ratings: dict[str, dict[str, str]] = {}
    for one in said:
        ratings.setdefault(one.by, {})[one.row] = one.label
    return ratings


def _model(name: str, rows: list[Judgement], *, human: Mapping[str, Preferred], seed: int) -> ModelJudge:
    comparisons = comparisons_of(rows)
    arms = rows[0].pair.arms
    words = {Preferred.FIRST: arms[0], Preferred.SECOND: arms[1], Preferred.TIE: "tie"}
    both = [(one.pair.row, preferred) for one in rows if (preferred := one.preferred) is not None and one.pair.row in human]
    ratings = {name: {row: words[said] for row, said in both}, "people": {row: words[human[row]] for row, _ in both}}
    return ModelJudge(
        name=name,
        sheet=assess_judge(rows, human=human, seed=seed),
        duel=rank_arms(comparisons, baseline=arms[1], seed=seed).duels[0] if comparisons else None,
        agreement=measure_agreement(ratings) if both else None,
    )
