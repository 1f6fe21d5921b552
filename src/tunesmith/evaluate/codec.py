"""A report as JSON, and back: what is stored, what another tool reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from tunesmith.errors import BrokenArtefact, DataError
from tunesmith.records import Report, Sample, Score
from tunesmith.store.digest import canonical_json, digest_of

__all__ = ["SCHEMA", "digest_report", "from_json", "to_json"]

SCHEMA = 1
"""Raised whenever an older reader would misread a report."""


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
    if schema != SCHEMA:
        raise DataError(
            f"A report of schema {schema!r} cannot be read; this tunesmith reads schema {SCHEMA}. Run the evaluation again."
        )
    try:
        report = _report(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenArtefact(f"A report lacks or mistypes a field ({error!r}). Run the evaluation again.") from error
    if digest_report(report) != report.id:
        raise BrokenArtefact(f"Report {report.id[:12]} was altered: its content does not match its id. Run the evaluation again.")
    return report


def _plain(report: Report) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "kind": report.kind,
        "scores": {
            arm: {metric: _plain_score(score) for metric, score in figures.items()} for arm, figures in report.scores.items()
        },
        "samples": [
            {"record": row.record, "question": row.question, "reference": row.reference, "answers": dict(row.answers)}
            for row in report.samples
        ],
        "verdict": report.verdict,
        "num_rows": report.num_rows,
        "signatures": dict(report.signatures),
    }


def _plain_score(score: Score) -> dict[str, float | str | None]:
    return {"value": _plain_number(score.value), "low": _plain_number(score.low), "high": _plain_number(score.high)}


def _plain_number(number: float | None) -> float | str | None:
    if number is None:
        return None
    return float(number) if math.isfinite(number) else str(float(number))


def _report(value: Mapping[str, Any]) -> Report:
    return Report(
        id=value["id"],
        kind=value["kind"],
        scores={arm: {metric: _score(score) for metric, score in figures.items()} for arm, figures in value["scores"].items()},
        samples=tuple(Sample(**row) for row in value["samples"]),
        verdict=value["verdict"],
        num_rows=value["num_rows"],
        signatures=value["signatures"],
    )


def _score(value: Mapping[str, Any]) -> Score:
    low, high = (None if value[bound] is None else float(value[bound]) for bound in ("low", "high"))
    return Score(value=float(value["value"]), low=low, high=high)
