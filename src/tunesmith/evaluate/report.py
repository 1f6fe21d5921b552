"""Judge arms on untouched test rows, and say what was found.

Every arm sees the same rows. Likelihoods are measured on all of them, answers on a fixed choice of at most
`config.max_rows`. Figures come with 95 % intervals over clusters, and every arm minus the baseline is paired.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from tunesmith.errors import DataError, TunesmithError
from tunesmith.evaluate.arms import Answering, Arm
from tunesmith.evaluate.bleu import bleu_statistics
from tunesmith.evaluate.choices import calibrate
from tunesmith.evaluate.chrf import chrf_statistics
from tunesmith.evaluate.classification import classification_over, classification_statistics
from tunesmith.evaluate.codec import digest_report
from tunesmith.evaluate.comparison import RESAMPLING, compare
from tunesmith.evaluate.config import EvaluateConfig, MetricName
from tunesmith.evaluate.costs import Meter
from tunesmith.evaluate.diversity import diversity_statistics
from tunesmith.evaluate.facts import facts_statistics
from tunesmith.evaluate.grounding import grounding_metric
from tunesmith.evaluate.likelihood import likelihood_statistics
from tunesmith.evaluate.metric import Metric, Outcome, Statistics
from tunesmith.evaluate.prompting import beside_prompts
from tunesmith.evaluate.questions import Question, choose_rows, cluster_ids, question_of
from tunesmith.evaluate.reading import reading_of
from tunesmith.evaluate.rouge import rouge_statistics
from tunesmith.evaluate.slices import own_labels, slices_of
from tunesmith.evaluate.squad import squad_statistics
from tunesmith.evaluate.ter import ter_statistics
from tunesmith.evaluate.verdict import BASE, TUNED, write_verdict
from tunesmith.records import Record, Report, Sample

__all__ = ["KIND", "METRICS", "OnProgress", "evaluate"]

KIND = "evaluation"
OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many rows of it are done, and how many there are."""

METRICS: Mapping[MetricName, Metric] = MappingProxyType(
    {
        "perplexity": likelihood_statistics,
        "rouge": rouge_statistics,
        "bleu": bleu_statistics,
        "chrf": chrf_statistics,
        "ter": ter_statistics,
        "squad": squad_statistics,
        "classification": classification_statistics,
        "diversity": diversity_statistics,
        "facts": facts_statistics,
        "grounding": grounding_metric(None),
    }
)
"""The metrics that a recipe can name."""
_NUM_ANSWERS_AT_ONCE = 32  # rows given to an arm between two reports of progress
_NUM_LIKELIHOODS_AT_ONCE = 256


_Row = TypeVar("_Row")
_Given = TypeVar("_Given")


def evaluate(
    records: Sequence[Record],
    *,
    arms: Mapping[str, Answering],
    config: EvaluateConfig,
    baseline: str = BASE,
    subject: str = TUNED,
    prompted: Sequence[str] = (),
    metrics: Mapping[str, Metric] = MappingProxyType({}),
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
    details: Mapping[str, Any] = MappingProxyType({}),
    meter: Meter | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Measure every arm on the same rows.

    Args:
        records: untouched test rows. A conversation is asked up to its last assistant turn, which is the reference; a
            plain text has its likelihood measured and is asked nothing.
        arms: what to judge, by name. One that is no `Arm`, for it gives no likelihoods, is left out of perplexity alone.
        config: what to measure.
        baseline: the arm that the others are compared with.
        subject: the arm that the verdict is about.
        prompted: arms that stand for prompting instead of training; the verdict compares the subject with the best of them.
        metrics: further ones, or others in place of `METRICS`, by name.
        labels: further slices: what they go by, and for each row the slice that it belongs to.
        details: kept in the report as they are.
        meter: learns what the answers took, and fills `details["arms"]`.
        on_progress: hears how far it is.

    Raises:
        DataError: there are no test rows, or none that the likelihood can be measured on.
        TunesmithError: an arm gave another number of answers than it was asked for.
    """
    _refuse_nothing(records, arms=arms)
    questions = _choose_questions(records, config=config, metrics=metrics)
    outcomes = _measure_all(arms, records=records, questions=questions, config=config, meter=meter, on_progress=on_progress)
    clusters = cluster_ids(records)
    wanted = _wanted(config, metrics=metrics, arms=outcomes.values())
    measured = {name: _figures(rows, metrics=_given_by(arms[name], wanted)) for name, rows in outcomes.items()}
    sure = _calibrate(measured, arms=arms, records=records, questions=questions, config=config, on_progress=on_progress)
    compared = compare(measured, clusters=clusters, seed=config.seed, baseline=baseline)
    labels = {**own_labels(records, questions=questions), **labels}
    prompting = beside_prompts(measured, subject=subject, prompted=prompted, clusters=clusters, seed=config.seed)
    report = Report(
        id="",
        kind=KIND,
        scores=compared.scores,
        differences=compared.differences,
        baseline=baseline,
        subject=subject,
        slices=slices_of(measured, labels=labels, clusters=clusters, seed=config.seed, baseline=baseline),
        samples=_samples(records, outcomes=outcomes, questions=questions, measured=measured),
        verdict="",
        num_rows=len(records),
        signatures={**compared.signatures, "interval": f"{RESAMPLING}|seed:{config.seed}"},
        details={**details, **sure, **({"arms": meter.table(subject=subject)} if meter else {}), **prompting},
    )
    return _with_verdict(report, num_clusters=len(np.unique(clusters)))


def _with_verdict(report: Report, *, num_clusters: int) -> Report:
    report = replace(report, verdict=write_verdict(report, num_clusters=num_clusters))
    return replace(report, id=digest_report(report))


def _refuse_nothing(records: Sequence[Record], *, arms: Mapping[str, Answering]) -> None:
    if not records:
        raise DataError("There are no test rows to evaluate on. Give data.split.test a share above 0, or more rows.")
    if not arms:
        raise TunesmithError("There are no arms to evaluate. At least one is needed.")


def _given_by(arm: Answering, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics that can be measured on an arm."""
    return {name: metric for name, metric in metrics.items() if name != "perplexity" or isinstance(arm, Arm)}


def _wanted(config: EvaluateConfig, *, metrics: Mapping[str, Metric], arms: Iterable[Sequence[Outcome]]) -> dict[str, Metric]:
    """The metrics to measure by, by name."""
    wanted: dict[str, Metric] = {**{name: METRICS[name] for name in config.metrics}, **metrics}
    if wanted.get("classification") is classification_statistics:
        wanted["classification"] = classification_over(arms)
    return wanted


def _figures(outcomes: Sequence[Outcome], *, metrics: Mapping[str, Metric]) -> dict[str, Statistics]:
    found: dict[str, Statistics] = {}
    for metric in metrics.values():
        found.update(metric(outcomes))
    return found


def _calibrate(
    measured: Mapping[str, dict[str, Statistics]],
    *,
    arms: Mapping[str, Answering],
    records: Sequence[Record],
    questions: Mapping[int, Question],
    config: EvaluateConfig,
    on_progress: OnProgress | None,
) -> dict[str, Any]:
    """Add how far each arm's certainty can be trusted to what was measured, where labels are judged; and the picture of it."""
    if "classification" not in config.metrics:
        return {}
    statistics, pictures = calibrate(arms, records=records, questions=questions, on_progress=on_progress)
    for name, found in statistics.items():
        measured[name].update(found)
    return {"reliability": {name: [list(row) for row in rows] for name, rows in pictures.items()}} if pictures else {}


def _samples(
    records: Sequence[Record],
    *,
    outcomes: Mapping[str, Sequence[Outcome]],
    questions: Mapping[int, Question],
    measured: Mapping[str, Mapping[str, Statistics]],
) -> tuple[Sample, ...]:
    """Every row that was answered, with what it alone would score."""
    return tuple(
        Sample(
            record=records[place].id,
            question=question.text,
            reference=question.reference,
            answers={name: rows[place].answer or "" for name, rows in outcomes.items()},
            scores={
                name: {
                    metric: round(float(statistics.figure(statistics.rows[place])), 4)
                    for metric, statistics in figures.items()
                    if reading_of(metric).is_per_row and statistics.counted[place]
                }
                for name, figures in measured.items()
            },
        )
        for place, question in questions.items()
    )


def _choose_questions(records: Sequence[Record], *, config: EvaluateConfig, metrics: Mapping[str, Metric]) -> dict[int, Question]:
    """Questions to ask, by the place of their row; none where only likelihoods are wanted."""
    if set(config.metrics) == {"perplexity"} and not metrics:
        return {}
    askable = {place: question for place, record in enumerate(records) if (question := question_of(record)) is not None}
    places = list(askable)
    chosen = choose_rows([records[place] for place in places], max_rows=config.max_rows)
    return {places[rank]: askable[places[rank]] for rank in chosen}


def _measure_all(
    arms: Mapping[str, Answering],
    *,
    records: Sequence[Record],
    questions: Mapping[int, Question],
    config: EvaluateConfig,
    meter: Meter | None,
    on_progress: OnProgress | None,
) -> dict[str, list[Outcome]]:
    return {
        name: _measure(arm, name=name, records=records, questions=questions, config=config, meter=meter, on_progress=on_progress)
        for name, arm in arms.items()
    }


def _measure(
    arm: Answering,
    *,
    name: str,
    records: Sequence[Record],
    questions: Mapping[int, Question],
    config: EvaluateConfig,
    meter: Meter | None,
    on_progress: OnProgress | None,
) -> list[Outcome]:
    """Ask one arm for everything the metrics need."""
    outcomes = [Outcome(record) for record in records]
    if "perplexity" in config.metrics and isinstance(arm, Arm):
        what = f"{name}: likelihoods"
        given = _ask(arm.likelihood, rows=records, at_once=_NUM_LIKELIHOODS_AT_ONCE, what=what, on_progress=on_progress)
        outcomes = [row._replace(likelihood=likelihood) for row, likelihood in zip(outcomes, given, strict=True)]
    what, asked = f"{name}: answers", list(questions.values())

    def ask(rows: Sequence[Question]) -> list[str]:
        started = time.perf_counter()
        answers = _answers(arm, rows)
        if meter is not None:
            usages = getattr(arm, "last_usage", [])
            meter.note(name, usages=usages, num_rows=len(rows), seconds=time.perf_counter() - started)
        return answers

    answers = _ask(ask, rows=asked, at_once=_NUM_ANSWERS_AT_ONCE, what=what, on_progress=on_progress)
    for (place, question), answer in zip(questions.items(), answers, strict=True):
        outcomes[place] = outcomes[place]._replace(reference=question.reference, answer=answer)
    return outcomes


def _answers(arm: Answering, questions: Sequence[Question]) -> list[str]:
    prompts, tools = [question.prompt for question in questions], [question.tools for question in questions]
    return arm.generate(prompts, tools=tools) if any(tools) else arm.generate(prompts)


def _ask(
    arm: Callable[[Sequence[_Row]], list[_Given]],
    *,
    rows: Sequence[_Row],
    at_once: int,
    what: str,
    on_progress: OnProgress | None,
) -> list[_Given]:
    """Call an arm for some rows at a time, and report how far it is."""
    given: list[_Given] = []
    for start in range(0, len(rows), at_once):
        asked = rows[start : start + at_once]
        got = arm(asked)
        if len(got) != len(asked):
            raise TunesmithError(f"{what}: the arm gave {len(got)} for {len(asked)} rows; one for each row is needed.")
        given.extend(got)
        if on_progress:
            on_progress(what, len(given), len(rows))
    return given
