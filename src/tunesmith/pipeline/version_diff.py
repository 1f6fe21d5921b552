"""What is different between two versions: their rows, their recipes, what they were made with, their figures and their proofs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.data import load_snapshot, load_split
from tunesmith.errors import BrokenArtefact, NotFound
from tunesmith.evaluate.comparison import compare
from tunesmith.evaluate.metric import Statistics, mean_statistics
from tunesmith.evaluate.questions import cluster_ids, question_of
from tunesmith.evaluate.reading import reading_of
from tunesmith.pipeline.evaluating import stored_report
from tunesmith.pipeline.evaluation_rows import tied
from tunesmith.pipeline.lineage import stored_recipe
from tunesmith.pipeline.proving import stored_sheet
from tunesmith.pipeline.versions import snapshot_of
from tunesmith.records import ModelVersion, Proof, Record, Report, Score, Snapshot
from tunesmith.store import Store

__all__ = ["VersionsDiff", "diff_versions"]

_NUM_SHOWN = 5
"""Rows, at most, that are named of each kind."""
_MADE_OF = ("base", "base_digest", "snapshot", "weights_digest", "chat_digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionsDiff:
    """Two versions side by side, as plain values. Each part that cannot be compared has the key `missing`, which says why."""

    first: str
    second: str
    data: Mapping[str, Any]
    """`rows`, `sources`, `domains` and `splits`."""
    configuration: Mapping[str, Any]
    """`changed`: key of the recipe -> both values."""
    made_of: Mapping[str, Any]
    """`changed`: base, code, libraries, machine, seed and digests -> both values."""
    metrics: Mapping[str, Any]
    """`figures`: metric -> both values; and `paired`, differences over the test rows that both reports share."""
    proofs: Mapping[str, Any]
    """By name, both outcomes."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": 1, **asdict(self)}


def diff_versions(first: str, second: str, *, store: Store) -> VersionsDiff:
    """Compare what is stored of two versions. Nothing is computed by a model.

    Args:
        first: `boutique@6`, or a name.
        second: the one that changes are told of: what it has and the first has not is `added`.
        store: the workspace.

    Raises:
        NotFound: there is no such version.
    """
    one, other = store.ledger.version(first), store.ledger.version(second)
    return VersionsDiff(
        first=one.ref,
        second=other.ref,
        data=_whole(lambda: _data(one, other, store=store)),
        configuration=_whole(lambda: _configuration(one, other, store=store)),
        made_of={"changed": _changed(_made_of(one), _made_of(other))},
        metrics=_whole(lambda: _metrics(one, other, store=store)),
        proofs=_proofs(one, other, store=store),
    )


def _whole(part: Any) -> Mapping[str, Any]:
    """A part of the comparison, or why there is none: what is gone from the store is told, and the rest is compared all the same."""
    try:
        found: Mapping[str, Any] = part()
    except (NotFound, BrokenArtefact) as error:
        return {"missing": str(error)}
    return found


def _data(one: ModelVersion, other: ModelVersion, *, store: Store) -> Mapping[str, Any]:
    before, after = (load_snapshot(store, snapshot_of(version.ref, store=store)) for version in (one, other))
    if before.id == after.id:
        return {"is_same": True, "snapshot": before.id, "rows": sum(before.splits.values())}
    rows, new_rows = (_rows(snapshot, store=store) for snapshot in (before, after))
    removed = [record for key, (_, record) in rows.items() if key not in new_rows]
    added = [record for key, (_, record) in new_rows.items() if key not in rows]
    asked = {question: record for record in removed if (question := _asks(record)) is not None}
    changed = [record for record in added if _asks(record) in asked]
    gone = {asked[question].id for record in changed if (question := _asks(record)) is not None}
    fresh = [record for record in added if _asks(record) not in asked]
    lost = [record for record in removed if record.id not in gone]
    moved = [record for key, (split, record) in new_rows.items() if key in rows and rows[key][0] != split]
    kinds = {"added": fresh, "removed": lost, "changed": changed, "moved to another split": moved}
    return {
        "is_same": False,
        "rows": {kind: len(found) for kind, found in kinds.items()} | {"before": len(rows), "after": len(new_rows)},
        "shown": {kind: [str(record.source) for record in found[:_NUM_SHOWN]] for kind, found in kinds.items() if found},
        "splits": {name: [before.splits.get(name, 0), after.splits.get(name, 0)] for name in {**before.splits, **after.splits}},
        "sources": _sources(before, after, rows=rows, new_rows=new_rows),
        "domains": _domains(rows, new_rows),
    }


_Rows = Mapping[str, tuple[str, Record]]


def _rows(snapshot: Snapshot, *, store: Store) -> _Rows:
    """Every row by its id, with the split that it is in."""
    return {record.id: (split, record) for split in snapshot.splits for record in load_split(store, snapshot, split=split)}


def _asks(record: Record) -> tuple[tuple[str, str], ...] | None:
    """What a row asks, by which it is the same row with another answer; None for a text, which asks nothing."""
    question = question_of(record)
    return tuple((message.role.value, message.content) for message in question.prompt) if question else None


def _sources(before: Snapshot, after: Snapshot, *, rows: _Rows, new_rows: _Rows) -> dict[str, dict[str, Any]]:
    ids = [
        {
            path: {key for key, (_, record) in found.items() if record.source.path == path}
            for path in (*before.formats, *after.formats)
        }
        for found in (rows, new_rows)
    ]
    result = {}
    for path in {**before.formats, **after.formats}:
        state = "removed" if path not in after.formats else "added" if path not in before.formats else ""
        if not state and (ids[0][path] != ids[1][path] or before.sources.get(path) != after.sources.get(path)):
            state = "changed"
        if state:
            result[path] = {"state": state, "rows": [len(ids[0][path]), len(ids[1][path])]}
    return result


def _domains(rows: _Rows, new_rows: _Rows) -> dict[str, list[int]]:
    """Rows of each domain, before and after."""
    before, after = (Counter(record.domain for _, record in found.values()) for found in (rows, new_rows))
    return {domain: [before[domain], after[domain]] for domain in sorted({**before, **after})}


def _configuration(one: ModelVersion, other: ModelVersion, *, store: Store) -> Mapping[str, Any]:
    recipes = [stored_recipe(version, store=store) for version in (one, other)]
    without = [version.ref for version, recipe in zip((one, other), recipes, strict=True) if recipe is None]
    if without:
        return {"missing": f"{' and '.join(without)} kept no recipe: registered by a release before recipes were kept"}
    before, after = (_flat(recipe) for recipe in recipes)
    return {"changed": _changed(before, after)}


def _flat(value: object, key: str = "") -> dict[str, Any]:
    """Nested values by dotted key, as `--set` names them."""
    if isinstance(value, Mapping) and value:
        below = [(f"{key}.{name}" if key else str(name), item) for name, item in value.items()]
    elif isinstance(value, list) and value and any(isinstance(item, Mapping | list) for item in value):
        below = [(f"{key}[{place}]", item) for place, item in enumerate(value)]
    else:
        return {key: value}
    return {name: found for path, item in below for name, found in _flat(item, path).items()}


def _made_of(version: ModelVersion) -> dict[str, Any]:
    own = {name: value for name in _MADE_OF if (value := getattr(version, name, None)) is not None}
    return {name: value for name, value in version.lineage.items() if name != "recipe"} | own


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Both values of every key that is not the same; None where one has it not."""
    keys = {**before, **after}
    return {key: [before.get(key), after.get(key)] for key in keys if before.get(key) != after.get(key)}


def _metrics(one: ModelVersion, other: ModelVersion, *, store: Store) -> Mapping[str, Any]:
    names = {**one.metrics, **other.metrics}
    figures = {name: [_plain(one.metrics.get(name)), _plain(other.metrics.get(name))] for name in names}
    reports = [stored_report(version, store=store) for version in (one, other)]
    if reports[0] is None or reports[1] is None:
        return {"figures": figures, "paired": {}, "why": "one of them has no report, for it keeps no test rows"}
    return {"figures": figures, **_paired(one, other, reports=(reports[0], reports[1]), store=store)}


def _paired(one: ModelVersion, other: ModelVersion, *, reports: tuple[Report, Report], store: Store) -> dict[str, Any]:
    """Second minus first over the rows that both have answered, by what each row alone scored."""
    scored = [{row.record: row.scores.get(report.subject, {}) for row in report.samples} for report in reports]
    if not (scored[0] and scored[1]):
        why = "a report of likelihoods alone keeps no single rows; `tunesmith compare` measures both models"
        return {"paired": {}, "num_rows": 0, "why": why}
    shared = [record for record in scored[0] if record in scored[1]]
    if not shared:
        return {
            "paired": {},
            "num_rows": 0,
            "why": "their reports share no test row; `tunesmith compare` asks both the same rows",
        }
    snapshot = load_snapshot(store, snapshot_of(one.ref, store=store))
    rows = {record.id: record for record in load_split(store, snapshot, split="test")}
    records = [rows[record] for record in shared if record in rows]
    if snapshot.id != snapshot_of(other.ref, store=store):
        records = tied(records)
    values = [[found[record.id] for record in records] for found in scored]
    statistics = [_statistics(found) for found in values]
    both = {one.ref: statistics[0], other.ref: statistics[1]}
    found = compare(both, clusters=cluster_ids(records), seed=0, baseline=one.ref).differences.get(other.ref, {})
    return {
        "paired": {metric: _score(score) for metric, score in found.items()},
        "num_rows": len(records),
        "why": f"mean over {len(records)} test rows of both, each by its own score"
        + ("; of perplexity the logarithm (nats per token)" if "perplexity" in found else ""),
    }


def _statistics(values: Sequence[Mapping[str, float]]) -> dict[str, Statistics]:
    """Means over rows, of the metrics that say something of one row. Of perplexity the logarithm, whose mean over rows means something."""
    metrics = dict.fromkeys(metric for row in values for metric in row if reading_of(metric).is_judged)
    return {metric: mean_statistics([_own(row, metric) for row in values], signature="mean of rows") for metric in metrics}


def _own(row: Mapping[str, float], metric: str) -> float | None:
    value = row.get(metric)
    if value is None or not math.isfinite(value):
        return None
    if metric == "perplexity":
        return math.log(value) / 100 if value > 0 else None
    return value / 100  # `mean_statistics` gives percent


def _score(score: Score) -> dict[str, Any]:
    return {name: _plain(value) for name, value in asdict(score).items() if value is not None}


def _proofs(one: ModelVersion, other: ModelVersion, *, store: Store) -> dict[str, Any]:
    sheets = [stored_sheet(version, store=store) for version in (one, other)]
    by_name = [{proof.name: proof for proof in sheet.proofs} if sheet else {} for sheet in sheets]
    return {
        "proved": [sheet.summary if sheet else None for sheet in sheets],
        "machines": [sheet.machine if sheet else None for sheet in sheets],
        "proofs": {name: [_proof(found.get(name)) for found in by_name] for name in {**by_name[0], **by_name[1]}},
    }


def _proof(proof: Proof | None) -> dict[str, Any] | None:
    if proof is None:
        return None
    return {"holds": proof.holds, "figure": _plain(proof.figure), "rule": proof.rule, "tolerance": proof.tolerance}


def _plain(number: float | None) -> float | str | None:
    """JSON has no infinity, so what is not finite is written as text."""
    return number if number is None or math.isfinite(number) else str(number)
