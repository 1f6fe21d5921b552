"""Predictions made elsewhere, as rows: `prediction` beside `reference` or `references`.

A row may name its `id`, its `cluster` (or `group`: rows that are not independent), and the `probabilities` of labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.files import BadRow, made_of_rows, shortened
from tunesmith.errors import DataError, NotFound
from tunesmith.evaluate.metric import Outcome
from tunesmith.records import Record, Source

__all__ = ["Prediction", "aligned", "read_predictions"]

_HALF = re.compile("[\ud800-\udfff]")
_ROUNDED = 0.005
"""By how much a probability with two digits behind the point may be off."""


class Prediction(NamedTuple):
    """One row."""

    id: str | None
    outcome: Outcome
    probabilities: Mapping[str, float] | None = None


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file of predictions, of any kind of rows that is read elsewhere (jsonl, json, csv, parquet, compressed).

    Raises:
        NotFound: there is no such file.
        DataError: a row is not as it should be; all such rows are named with their lines. Or there is none.
    """
    if not path.exists():
        raise NotFound(f"there is no file {path}. Name a file of predictions: rows with `prediction` and `reference`")
    numbers = count()
    rows = made_of_rows(path, lambda row, place: _prediction(row, number=next(numbers), place=place), what="cannot be scored")
    if not rows:
        raise DataError(f"{path} holds no row. Give rows with `prediction` and `reference`.")
    return rows


def aligned(rows: Sequence[Prediction], others: Sequence[Prediction]) -> list[Prediction]:
    """The other file's rows in the order of the first one's: by their ids where all have one, else line by line.

    Raises:
        DataError: the two do not hold the same rows.
    """
    if all(row.id is not None for row in (*rows, *others)):
        by_id = {row.id: row for row in others}
        _refuse_twins(rows)
        _refuse_twins(others)
        missing = [row for row in rows if row.id not in by_id]
        if missing or len(others) != len(rows):
            place = f"; the first missing one is {missing[0].id!r} ({missing[0].outcome.record.source})" if missing else ""
            raise DataError(f"The two files do not hold the same ids: {len(rows):,} rows and {len(others):,} rows{place}.")
        others = [by_id[row.id] for row in rows]
    if len(others) != len(rows):
        raise DataError(
            f"The two files have {len(rows):,} and {len(others):,} rows. Rows are compared one by one, so give the same ones."
        )
    for row, other in zip(rows, others, strict=True):
        if row.id is not None and other.id is not None and row.id != other.id:
            raise DataError(
                f"{row.outcome.record.source} and {other.outcome.record.source} have different ids: {row.id!r} and {other.id!r}. "
                "Rows without ids are compared line by line, so give every row its id, or none."
            )
        if row.outcome.references != other.outcome.references:
            raise DataError(
                f"{row.outcome.record.source} and {other.outcome.record.source} have different references: "
                f"{shortened(row.outcome.reference)!r} and {shortened(other.outcome.reference)!r}. Rows are compared one by one."
            )
    return list(others)


def _refuse_twins(rows: Sequence[Prediction]) -> None:
    seen: dict[str | None, Prediction] = {}
    for row in rows:
        twin = seen.setdefault(row.id, row)
        if twin is not row:
            raise DataError(
                f"{row.outcome.record.source}: id {row.id!r} stands in {twin.outcome.record.source} too. "
                "Rows are compared by their ids, so each needs one of its own."
            )


def _prediction(row: Mapping[str, Any], *, number: int, place: Source) -> Prediction:
    answer = _text(row, "prediction")
    given = row.get("references")
    if given is None or given == "":  # a table has an empty cell where a row has none
        references = [_text(row, "reference")]
    elif isinstance(given, list) and given:
        references = [_plain(one, f"references[{at}]") for at, one in enumerate(given)]
    else:
        raise BadRow("wrong_type", f"`references` is to be a list of texts, and is {shortened(given)}")
    identity, *clusters = (_name(row, key) for key in ("id", "cluster", "group"))
    # Lines do not tell rows apart: each file in an archive begins at line 1.
    record = Record(id=str(number), source=place, group=next((one for one in clusters if one), None))
    return Prediction(identity, Outcome(record, references[0], answer, None, tuple(references[1:])), _probabilities(row))


def _name(row: Mapping[str, Any], key: str) -> str | None:
    return None if row.get(key) is None else _plain(row[key], key)


def _text(row: Mapping[str, Any], key: str) -> str:
    if key in row and row[key] is None:
        raise BadRow("missing_field", f"`{key}` is null. Where nothing was answered, write an empty text")
    if key not in row:
        raise BadRow("missing_field", f"`{key}` is missing; the row has {', '.join(sorted(row)) or 'no field'}")
    return _plain(row[key], key)


def _plain(value: object, name: str) -> str:
    """A text; labels may be numbers or truth values, spelled as JSON has them: 1.0 is the same number as 1."""
    if isinstance(value, str):
        if _HALF.search(value):
            raise BadRow(
                "lone_surrogate", f"half a character stands in `{name}`: {shortened(value)}. Take it out, or write it whole"
            )
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(float(value))  # however its file spells it
    raise BadRow("wrong_type", f"`{name}` is to be a text, and is {shortened(value)}")


def _probabilities(row: Mapping[str, Any]) -> dict[str, float] | None:
    given = row.get("probabilities")
    if given is None or given == "":
        return None
    sound = (
        isinstance(given, dict)
        and given
        and all(isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1 for p in given.values())
    )
    if not sound:
        raise BadRow("wrong_type", f"`probabilities` is to give each label a number from 0 to 1, and is {shortened(given)}")
    found = {_plain(label, "probabilities").strip(): float(p) for label, p in given.items()}
    if len(found) < len(given):
        raise BadRow("duplicate_key", f"`probabilities` names a label twice, with other spaces around it: {shortened(given)}")
    total = math.fsum(found.values())
    if total > 1 + _ROUNDED * len(found):
        raise BadRow(
            "out_of_range",
            f"`probabilities` sum to {total:.3g}, and those of labels that exclude each other to 1 at most: {shortened(given)}. "
            "Are they scores, or of labels that may hold together? Divide them by their sum, or leave them out",
        )
    return found
