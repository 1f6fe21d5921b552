"""Score predictions made elsewhere: figures with intervals and signatures, and the paired difference to another file's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import UserError
from tunesmith.evaluate.bleu import bleu_statistics
from tunesmith.evaluate.bootstrap import interval, resample
from tunesmith.evaluate.chrf import chrf_statistics
from tunesmith.evaluate.classification import auc, calibration_statistics, classification_over, classification_statistics
from tunesmith.evaluate.comparison import RESAMPLING, compare, rows_needed
from tunesmith.evaluate.custom import is_own_metric, load_metrics
from tunesmith.evaluate.diversity import diversity_statistics
from tunesmith.evaluate.grounding import grounding_metric, read_sheet
from tunesmith.evaluate.metric import Metric, Outcome, Statistics
from tunesmith.evaluate.predictions import Prediction, aligned, read_predictions
from tunesmith.evaluate.questions import cluster_ids
from tunesmith.evaluate.rouge import RougeTokenizer, rouge_metric
from tunesmith.evaluate.squad import squad_statistics
from tunesmith.evaluate.ter import ter_statistics
from tunesmith.records import Score

__all__ = ["ScoreMetric", "Scored", "score_files"]

ScoreMetric = Literal["rouge", "bleu", "chrf", "ter", "squad", "classification", "calibration", "diversity", "grounding"]
_AUC_BLOCK = 200  # draws for which rows are weighted at once
_OURS, _OTHERS = "predictions", "against"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What was measured."""

    metrics: Mapping[str, Score]
    signatures: Mapping[str, str]
    num_rows: int
    num_clusters: int
    against: Mapping[str, Score]
    """The other file's figures; empty without one."""
    differences: Mapping[str, Score]
    """Predictions minus the other file's, paired."""

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        plain: dict[str, Any] = {
            "metrics": _plain(self.metrics),
            "signatures": dict(self.signatures),
            "num_rows": self.num_rows,
            "num_clusters": self.num_clusters,
        }
        if self.against:
            differences = {
                name: {
                    **_bounds(score),
                    "p_value": score.p_value,
                    "p_adjusted": score.p_adjusted,
                    "detectable": score.detectable,
                    "rows_needed": rows_needed(score, num_rows=self.num_rows),
                }
                for name, score in self.differences.items()
            }
            plain |= {"against": _plain(self.against), "difference": differences}
        return plain


def score_files(
    path: Path,
    *,
    metrics: Sequence[str],
    against: Path | None = None,
    stems: bool = False,
    tokenizer: RougeTokenizer = "unicode",
    facts: Path | None = None,
    seed: int = 0,
) -> Scored:
    """Score a file of predictions.

    Args:
        path: rows with `prediction` and `reference` or `references`.
        metrics: names of `ScoreMetric`, or functions of the user's own (`custom`).
        against: another system's predictions of the same rows.
        stems: whether ROUGE compares Porter stems.
        tokenizer: how ROUGE splits texts.
        facts: a fact sheet, for `grounding`.
        seed: of resampling.

    Raises:
        DataError: a row is not as it should be, or the two files do not hold the same rows.
        UserError: a metric is unknown, or cannot be measured on these rows.
    """
    rows = read_predictions(path)
    files = {_OURS: rows} | ({_OTHERS: aligned(rows, read_predictions(against))} if against else {})
    chosen = _metrics(metrics, stems=stems, tokenizer=tokenizer, facts=facts)
    if "classification" in chosen:
        chosen["classification"] = classification_over([row.outcome for row in file] for file in files.values())
    measured = {name: _measure(file, metrics=chosen) for name, file in files.items()}
    silent = [name for name in chosen if not any(figures[name] for figures in measured.values())]
    if silent:
        raise UserError(f"--metrics {silent[0]}: there is nothing in these rows that it could measure")
    clusters = cluster_ids([row.outcome.record for row in rows])
    merged = {
        file: {name: one for found in figures.values() for name, one in found.items()} for file, figures in measured.items()
    }
    compared = compare(merged, clusters=clusters, seed=seed, baseline=_OTHERS if against else None)
    scores, signatures = {name: dict(found) for name, found in compared.scores.items()}, dict(compared.signatures)
    if "calibration" in metrics:
        for name, file in files.items():
            if (area := _area(file, clusters=clusters, seed=seed)) is not None:
                scores[name]["auc"] = area
                signatures["auc"] = "auc|area under the ROC curve of the later of two labels|ties half|x 100"
    signatures["interval"] = f"{RESAMPLING}|seed:{seed}"
    return Scored(
        metrics=scores[_OURS],
        signatures=signatures,
        num_rows=len(rows),
        num_clusters=len(np.unique(clusters)),
        against=scores.get(_OTHERS, {}),
        differences=compared.differences.get(_OURS, {}),
    )


def _metrics(names: Sequence[str], *, stems: bool, tokenizer: RougeTokenizer, facts: Path | None) -> dict[str, Metric]:
    known: dict[str, Metric] = {
        "rouge": rouge_metric(tokenizer=tokenizer, stems=stems, always_lsum=True),
        "bleu": bleu_statistics,
        "chrf": chrf_statistics,
        "ter": ter_statistics,
        "squad": squad_statistics,
        "classification": classification_statistics,
        "diversity": diversity_statistics,
    }
    if not names:
        raise UserError(f"--metrics names no metric. Known: {', '.join(get_args(ScoreMetric))}, or FILE.py:FUNCTION")
    own = load_metrics(filter(is_own_metric, names), folder=Path())
    chosen: dict[str, Metric] = {}
    for name in names:
        if is_own_metric(name):
            continue
        if name == "grounding":
            if facts is None:
                raise UserError("--metrics grounding needs the facts that answers may rest on: --facts FILE")
            chosen[name] = grounding_metric(read_sheet(facts, named_by="--facts"))
        elif name in known:
            chosen[name] = known[name]
        elif name != "calibration":
            raise UserError(f"--metrics: {name!r} is unknown. Known: {', '.join(get_args(ScoreMetric))}, or FILE.py:FUNCTION")
    if "calibration" in names:
        chosen["calibration"] = lambda _outcomes: {}  # it is measured on probabilities, see `_measure`
    return chosen | own


def _measure(rows: Sequence[Prediction], *, metrics: Mapping[str, Metric]) -> dict[str, Mapping[str, Statistics]]:
    """Metric -> figure -> statistics."""
    outcomes: list[Outcome] = [row.outcome for row in rows]
    found = {name: metric(outcomes) for name, metric in metrics.items()}
    if "calibration" in metrics:
        found["calibration"] = calibration_statistics(
            [row.probabilities for row in rows], references=[row.outcome.reference.strip() for row in rows]
        )
        if not found["calibration"]:
            raise UserError("--metrics calibration needs rows with `probabilities`: a number from 0 to 1 for each label")
    return found


def _area(rows: Sequence[Prediction], *, clusters: NDArray[np.int64], seed: int) -> Score | None:
    """Of two labels how well the probability of the later one (in the order of the alphabet) tells them apart."""
    labels = sorted({row.outcome.reference.strip() for row in rows})
    if len(labels) != 2 or any(row.probabilities is None for row in rows):
        return None
    scores = [(row.probabilities or {}).get(labels[1], 0.0) for row in rows]
    positives = [row.outcome.reference.strip() == labels[1] for row in rows]
    numbers = np.unique(clusters, return_inverse=True)[1]
    num_clusters = int(numbers.max()) + 1
    counts = resample(np.eye(num_clusters), seed=seed)
    draws = np.concatenate(
        [
            auc(scores, positives=positives, weights=counts[start : start + _AUC_BLOCK][:, numbers])
            for start in range(0, len(counts), _AUC_BLOCK)
        ]
    )
    bounds = interval(100 * draws, num_clusters=num_clusters)
    value = 100 * float(auc(scores, positives=positives))
    return Score(value=value, low=bounds.low, high=bounds.high) if bounds else Score(value=value)


def _plain(scores: Mapping[str, Score]) -> dict[str, dict[str, float | None]]:
    return {name: _bounds(score) for name, score in scores.items()}


def _bounds(score: Score) -> dict[str, float | None]:
    return {"value": score.value, "low": score.low, "high": score.high}
