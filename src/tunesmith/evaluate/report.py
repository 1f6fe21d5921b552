"""Judge arms on untouched test rows, and say what was found.

Every arm sees the same rows. Likelihoods are measured on all of them, answers on a fixed choice of at most
`config.max_rows`. Figures come with 95 % intervals over clusters, and tuned minus base is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError, TunesmithError
from tunesmith.evaluate.arms import Arm
from tunesmith.evaluate.bleu import bleu_statistics
from tunesmith.evaluate.bootstrap import NUM_RESAMPLES, cluster_sums, interval, paired_p_value, resample
from tunesmith.evaluate.codec import digest_report
from tunesmith.evaluate.config import EvaluateConfig, MetricName
from tunesmith.evaluate.facts import facts_statistics
from tunesmith.evaluate.likelihood import likelihood_statistics
from tunesmith.evaluate.metric import Floats, Metric, Outcome, Statistics
from tunesmith.evaluate.questions import Question, choose_rows, cluster_ids, question_of
from tunesmith.evaluate.rouge import rouge_statistics
from tunesmith.evaluate.verdict import BASE, DIFFERENCE, TUNED, Evidence, write_verdict
from tunesmith.records import Record, Report, Sample, Score

__all__ = ["KIND", "OnProgress", "evaluate"]

KIND = "evaluation"
OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many rows of it are done, and how many there are."""

_METRICS: Mapping[MetricName, Metric] = {
    "perplexity": likelihood_statistics,
    "rouge": rouge_statistics,
    "bleu": bleu_statistics,
    "facts": facts_statistics,
}
_NUM_ANSWERS_AT_ONCE = 32  # rows given to an arm between two reports of progress
_NUM_LIKELIHOODS_AT_ONCE = 256


_Row = TypeVar("_Row")
_Given = TypeVar("_Given")


class _Measured(NamedTuple):
    """One metric of every arm."""

    scores: Mapping[str, Score]
    signature: str
    evidence: Evidence


def evaluate(
    records: Sequence[Record], *, arms: Mapping[str, Arm], config: EvaluateConfig, on_progress: OnProgress | None = None
) -> Report:
    """Measure every arm on the same rows.

    Args:
        records: untouched test rows. A conversation is asked up to its last assistant turn, which is the reference; a
            plain text has its likelihood measured and is asked nothing.
        arms: what to judge, by name. `base` and `tuned` are compared, under the name `difference`.
        config: what to measure.
        on_progress: hears how far it is.

    Raises:
        DataError: there are no test rows, or none that the likelihood can be measured on.
        TunesmithError: an arm gave another number of answers than it was asked for.
    """
    if not records:
        raise DataError("There are no test rows to evaluate on. Give data.split.test a share above 0, or more rows.")
    if not arms or DIFFERENCE in arms:
        raise TunesmithError(f"Arms to evaluate: {sorted(arms)}. At least one is needed, and none may be called `{DIFFERENCE}`.")
    questions = _choose_questions(records, config=config)
    outcomes = {
        name: _measure(arm, name=name, records=records, questions=questions, config=config, on_progress=on_progress)
        for name, arm in arms.items()
    }
    clusters = cluster_ids(records)
    measured: dict[str, _Measured] = {}
    for metric in config.metrics:
        by_arm = {name: _METRICS[metric](rows) for name, rows in outcomes.items()}
        for figure in next(iter(by_arm.values())):
            found = _compare({name: by_arm[name][figure] for name in arms}, clusters=clusters, seed=config.seed)
            if found:
                measured[figure] = found
    return _report(records, outcomes=outcomes, questions=questions, measured=measured, clusters=clusters, seed=config.seed)


def _choose_questions(records: Sequence[Record], *, config: EvaluateConfig) -> dict[int, Question]:
    """Questions to ask, by the place of their row; none where only likelihoods are wanted."""
    if set(config.metrics) == {"perplexity"}:
        return {}
    askable = {place: question for place, record in enumerate(records) if (question := question_of(record)) is not None}
    places = list(askable)
    chosen = choose_rows([records[place] for place in places], max_rows=config.max_rows)
    return {places[rank]: askable[places[rank]] for rank in chosen}


def _measure(
    arm: Arm,
    *,
    name: str,
    records: Sequence[Record],
    questions: Mapping[int, Question],
    config: EvaluateConfig,
    on_progress: OnProgress | None,
) -> list[Outcome]:
    """Ask one arm for everything the metrics need."""
    outcomes = [Outcome(record) for record in records]
    if "perplexity" in config.metrics:
        what = f"{name}: likelihoods"
        given = _ask(arm.likelihood, rows=records, at_once=_NUM_LIKELIHOODS_AT_ONCE, what=what, on_progress=on_progress)
        outcomes = [row._replace(likelihood=likelihood) for row, likelihood in zip(outcomes, given, strict=True)]
    what, asked = f"{name}: answers", list(questions.values())
    answers = _ask(lambda rows: _answers(arm, rows), rows=asked, at_once=_NUM_ANSWERS_AT_ONCE, what=what, on_progress=on_progress)
    for (place, question), answer in zip(questions.items(), answers, strict=True):
        outcomes[place] = outcomes[place]._replace(reference=question.reference, answer=answer)
    return outcomes


def _answers(arm: Arm, questions: Sequence[Question]) -> list[str]:
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


def _compare(by_arm: Mapping[str, Statistics], *, clusters: NDArray[np.int64], seed: int) -> _Measured | None:
    """Figures and intervals of one metric for every arm, over the rows that count for all of them."""
    counted = np.logical_and.reduce([statistics.counted for statistics in by_arm.values()])
    if not counted.any():
        return None
    first = next(iter(by_arm.values()))
    figure = first.figure
    renumbered = np.unique(clusters[counted], return_inverse=True)[1].astype(np.int64)
    num_clusters = int(renumbered.max()) + 1
    sums = {name: cluster_sums(row.rows[counted], clusters=renumbered) for name, row in by_arm.items()}
    # Every arm is summed over the same draws: that is what pairs them.
    drawn = np.split(resample(np.concatenate(list(sums.values()), axis=1), seed=seed), len(sums), axis=1)
    draws = {name: figure(columns) for name, columns in zip(sums, drawn, strict=True)}
    values = {name: float(figure(column.sum(axis=0))) for name, column in sums.items()}
    scores = {name: _score(values[name], draws[name], num_clusters=num_clusters) for name in by_arm}
    signature, p_value = first.signature, None
    if BASE in by_arm and TUNED in by_arm:
        same_unit = by_arm[BASE].rows[counted, first.denominator] == by_arm[TUNED].rows[counted, first.denominator]
        if not same_unit.all():
            signature += "|no difference: base and tuned count units differently (another tokenizer)"
        elif not np.isinf([values[BASE], values[TUNED]]).all():
            with np.errstate(invalid="ignore"):  # inf - inf in a draw: then there is no interval
                scores[DIFFERENCE] = _score(values[TUNED] - values[BASE], draws[TUNED] - draws[BASE], num_clusters=num_clusters)
            p_value = paired_p_value(sums[BASE], tuned=sums[TUNED], figure=figure, seed=seed)
    signature += f"|rows:{int(counted.sum())}|clusters:{num_clusters}"
    return _Measured(scores, signature, Evidence(int(counted.sum()), num_clusters, p_value))


def _score(value: float, draws: Floats, *, num_clusters: int) -> Score:
    bounds = interval(draws, num_clusters=num_clusters)
    return Score(value=value, low=bounds.low, high=bounds.high) if bounds else Score(value=value)


def _report(
    records: Sequence[Record],
    *,
    outcomes: Mapping[str, Sequence[Outcome]],
    questions: Mapping[int, Question],
    measured: Mapping[str, _Measured],
    clusters: NDArray[np.int64],
    seed: int,
) -> Report:
    scores: dict[str, dict[str, Score]] = {name: {} for name in [*outcomes, DIFFERENCE]}
    for metric, found in measured.items():
        for arm, score in found.scores.items():
            scores[arm][metric] = score
    num_clusters = len(np.unique(clusters))
    report = Report(
        id="",
        kind=KIND,
        scores={arm: figures for arm, figures in scores.items() if figures or arm != DIFFERENCE},
        samples=tuple(
            Sample(
                record=records[place].id,
                question=question.text,
                reference=question.reference,
                answers={name: rows[place].answer or "" for name, rows in outcomes.items()},
            )
            for place, question in questions.items()
        ),
        verdict="",
        num_rows=len(records),
        signatures={metric: found.signature for metric, found in measured.items()}
        | {"interval": f"95 % expanded percentile bootstrap|whole clusters, paired|resamples:{NUM_RESAMPLES}|seed:{seed}"},
    )
    evidence = {metric: found.evidence for metric, found in measured.items()}
    report = replace(report, verdict=write_verdict(report, evidence=evidence, num_clusters=num_clusters))
    return replace(report, id=digest_report(report))
