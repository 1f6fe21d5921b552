"""A report as JSON, and back: what is stored, what another tool reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from tunesmith.errors import BrokenArtefact, DataError
from tunesmith.records import Report, Sample, Score, Slice
from tunesmith.store.digest import canonical_json, digest_of

__all__ = ["SCHEMA", "digest_report", "from_json", "to_json"]

SCHEMA = 2
"""Raised whenever an older reader would misread a report."""
_READ = (1, SCHEMA)
_OF_DIFFERENCES = ("p_value", "p_adjusted", "detectable")
_FIELDS = ("value", "low", "high", *_OF_DIFFERENCES)
_Scores = Mapping[str, Mapping[str, Score]]


def digest_report(report: Report) -> str:
    """The id of a report: the digest of all it says, its own id aside."""
    return digest_of(_plain(report))


def to_json(report: Report) -> bytes:
    """Canonical JSON of a report. JSON has no infinity, so figures that are not finite are written as strings."""
    return canonical_json({**_plain(report), "id": report.id})


def from_json(data: bytes) -> Report:
    """Read a report that `to_json` wrote.

    Raises:
        DataError: it is no report, or one of another schema version.
        BrokenArtefact: its content does not match its id.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DataError(f"This is not a report: not valid JSON ({error}). Run the evaluation again.") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema not in _READ:
        raise DataError(
            f"A report of schema {schema!r} cannot be read; this tunesmith reads schemas {_READ[0]} to {SCHEMA}. "
            "Run the evaluation again."
        )
    try:
        report = _report(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenArtefact(f"A report lacks or mistypes a field ({error!r}). Run the evaluation again.") from error
    if digest_of({name: part for name, part in value.items() if name != "id"}) != report.id:
        raise BrokenArtefact(f"Report {report.id[:12]} was altered: its content does not match its id. Run the evaluation again.")
    return report


def _plain(report: Report) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "kind": report.kind,
        "scores": _plain_scores(report.scores),
        "differences": _plain_scores(report.differences),
        "baseline": report.baseline,
        "subject": report.subject,
        "slices": [
            {
                "name": one.name,
                "num_rows": one.num_rows,
                "num_clusters": one.num_clusters,
                "scores": _plain_scores(one.scores),
                "differences": _plain_scores(one.differences),
            }
            for one in report.slices
        ],
        "samples": [
            {
                "record": row.record,
                "question": row.question,
                "reference": row.reference,
                "answers": dict(row.answers),
                "scores": {
                    arm: {metric: _plain_number(value) for metric, value in figures.items()}
                    for arm, figures in row.scores.items()
                },
            }
            for row in report.samples
        ],
        "details": report.details,
        "verdict": report.verdict,
        "num_rows": report.num_rows,
        "signatures": dict(report.signatures),
    }


def _plain_scores(scores: _Scores) -> dict[str, dict[str, Any]]:
    return {arm: {metric: _plain_score(score) for metric, score in figures.items()} for arm, figures in scores.items()}


def _plain_score(score: Score) -> dict[str, float | str | None]:
    plain = {name: _plain_number(getattr(score, name)) for name in _FIELDS}
    return {name: value for name, value in plain.items() if value is not None or name not in _OF_DIFFERENCES}


def _plain_number(number: float | None) -> float | str | None:
    if number is None:
        return None
    return float(number) if math.isfinite(number) else str(float(number))


def _report(value: Mapping[str, Any]) -> Report:
    if value["schema"] == 1:
        # It knew one comparison, which stood among the arms.
        scores = dict(value["scores"])
        found = {"tuned": scores.pop("difference")} if "difference" in scores else {}
        samples = [{**row, "scores": {}} for row in value["samples"]]
        new = {"scores": scores, "differences": found, "baseline": "base", "subject": "tuned", "slices": [], "details": {}}
        value = {**value, **new, "samples": samples}
    return Report(
        id=value["id"],
        kind=value["kind"],
        scores=_scores(value["scores"]),
        differences=_scores(value["differences"]),
        baseline=value["baseline"],
        subject=value["subject"],
        slices=tuple(
            Slice(**{**one, "scores": _scores(one["scores"]), "differences": _scores(one["differences"])})
            for one in value["slices"]
        ),
        samples=tuple(_sample(row) for row in value["samples"]),
        details=value["details"],
        verdict=value["verdict"],
        num_rows=value["num_rows"],
        signatures=value["signatures"],
    )


def _sample(value: Mapping[str, Any]) -> Sample:
    scores = {arm: {metric: float(number) for metric, number in figures.items()} for arm, figures in value["scores"].items()}
    return Sample(**{**value, "scores": scores})


def _scores(value: Mapping[str, Mapping[str, Any]]) -> _Scores:
    return {arm: {metric: _score(score) for metric, score in figures.items()} for arm, figures in value.items()}


def _score(value: Mapping[str, Any]) -> Score:
    others = {name: None if value.get(name) is None else float(value[name]) for name in _FIELDS[1:]}
    return Score(value=float(value["value"]), **others)
