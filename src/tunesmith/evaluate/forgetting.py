"""What a fine-tune has cost: how much less likely general text has become.

The probe is some sixty short passages of everyday text, science, history, letters, recipes, code, numbers, German and French, written
for this purpose. Base and tuned are measured on the same passages, in bits per byte, and the difference is paired with its interval.

The reading goes by how much bits per byte have risen, relative to the base:

    none     by less than 1 %, or the interval of the difference reaches down to 0
    slight   by 1 % to less than 10 %
    clear    by 10 % or more
    unknown  the base finds a passage impossible, so nothing can be compared

Bits per byte are a logarithm: a rise by 10 % at 1.3 bits per byte makes a passage of 100 bytes 8,000 times less likely.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson

from tunesmith.evaluate.arms import Arm, Likelihood
from tunesmith.evaluate.comparison import compare
from tunesmith.evaluate.likelihood import bits_per_byte, likelihood_statistics
from tunesmith.evaluate.metric import Outcome
from tunesmith.records import Record, Score, Source

__all__ = ["CLEAR", "SLIGHT", "Forgetting", "Probe", "forgetting_in_words", "general_probe", "measure_forgetting"]

SLIGHT, CLEAR = 1.0, 10.0
"""Percent by which bits per byte rise, from which forgetting is called slight or clear."""
Reading = Literal["none", "slight", "clear", "unknown"]


class Probe(NamedTuple):
    """General text."""

    records: tuple[Record, ...]
    """Plain texts; the domain is the kind of text."""
    digest: str
    """Sha256 of the file."""


class Forgetting(NamedTuple):
    """What was found."""

    base: float
    """Bits per byte."""
    tuned: float
    difference: Score
    """Tuned minus base."""
    percent: float
    """The difference relative to the base."""
    reading: Reading

    def as_json(self) -> dict[str, Any]:
        """Plain values; a figure that is not finite is None."""
        difference = {name: _plain(getattr(self.difference, name)) for name in ("value", "low", "high", "p_value")}
        figures = {name: _plain(getattr(self, name)) for name in ("base", "tuned", "percent")}
        return {**figures, "difference": difference, "reading": self.reading}


@cache
def general_probe() -> Probe:
    """The probe inside the package."""
    data = (Path(__file__).parent / "probe.jsonl").read_bytes()
    rows = [orjson.loads(line) for line in data.splitlines()]
    records = tuple(
        Record(id=f"probe:{at}", source=Source(path="probe.jsonl", line=at), text=row["text"], domain=row["kind"])
        for at, row in enumerate(rows, start=1)
    )
    return Probe(records, hashlib.sha256(data).hexdigest())


def measure_forgetting(tuned: Arm, base: Arm, *, probe: Probe | None = None, seed: int = 0) -> dict[str, Any]:
    """Measure both on general text.

    Args:
        tuned: the fine-tuned model.
        base: what it began as.
        probe: the text; None is that of the package.
        seed: of the resampling.

    Returns:
        Plain values: `base` and `tuned` in bits per byte, `difference` with its interval, `percent`, `reading`, the same two figures
        for each kind of text under `kinds`, and which probe it was.

    Raises:
        DataError: the models find nothing in it that they could score.
    """
    text = probe or general_probe()
    before, after = base.likelihood(text.records), tuned.likelihood(text.records)
    found = _compare(text.records, before=before, after=after, seed=seed)
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(text.records):
        kinds[record.domain].append(place)
    return found.as_json() | {
        "kinds": {
            kind: {
                "base": _plain(bits_per_byte([before[place] for place in places])),
                "tuned": _plain(bits_per_byte([after[place] for place in places])),
                "num_passages": len(places),
            }
            for kind, places in kinds.items()
        },
        "probe": {"sha256": text.digest, "num_passages": len(text.records), "num_bytes": sum(row.num_bytes for row in before)},
        "thresholds": {"slight": SLIGHT, "clear": CLEAR},
    }


def forgetting_in_words(details: Mapping[str, Any]) -> str:
    """One sentence of a report's details (or of their part `safety`); empty where it was not measured.

    >>> found = {"base": 1.31, "tuned": 1.34, "percent": 2.29, "reading": "slight"}
    >>> forgetting_in_words({"safety": {"forgetting": found}})
    'General text slightly worse: 1.310 -> 1.340 bits per byte (+2.3 %).'
    """
    found = details.get("safety", details).get("forgetting")
    words = {"none": "as likely as before", "slight": "slightly worse", "clear": "clearly worse"}
    if not found or found["reading"] not in words:
        return ""
    figures = f"General text {words[found['reading']]}: {found['base']:.3f} -> "
    if found["tuned"] is None:
        return figures + "infinite bits per byte."
    return figures + f"{found['tuned']:.3f} bits per byte ({found['percent']:+.1f} %)."


def _compare(records: Sequence[Record], *, before: Sequence[Likelihood], after: Sequence[Likelihood], seed: int) -> Forgetting:
    name = "bits_per_byte"
    rows = {
        arm: [Outcome(record, likelihood=likelihood) for record, likelihood in zip(records, found, strict=True)]
        for arm, found in (("base", before), ("tuned", after))
    }
    measured = {arm: {name: likelihood_statistics(outcomes)[name]} for arm, outcomes in rows.items()}
    compared = compare(measured, clusters=np.arange(len(records), dtype=np.int64), seed=seed, baseline="base")
    base, tuned = (compared.scores[arm][name].value for arm in ("base", "tuned"))
    difference = compared.differences["tuned"].get(name, Score(value=tuned - base))
    percent = 100 * (tuned - base) / base if base > 0 else 0.0
    return Forgetting(base, tuned, difference, percent, _read(percent, difference))


def _plain(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _read(percent: float, difference: Score) -> Reading:
    if math.isnan(percent) or percent == -math.inf:
        return "unknown"
    is_certain = difference.low is None or difference.low > 0  # too few passages for an interval: the figure itself
    if percent < SLIGHT or not is_certain:
        return "none"
    return "slight" if percent < CLEAR else "clear"
