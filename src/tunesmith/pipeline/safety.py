"""What a fine-tune has done to the model it began as: what it forgot, broke or refuses no more, whether it stops, what it says by rote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.data import load_snapshot, load_split
from tunesmith.errors import DataError
from tunesmith.evaluate import Arm, EvaluateConfig, Outcome
from tunesmith.evaluate.asked_once import AskedOnce
from tunesmith.evaluate.comparison import compare
from tunesmith.evaluate.forgetting import forgetting_in_words, general_probe, measure_forgetting
from tunesmith.evaluate.likelihood import bits_per_byte, likelihood_statistics
from tunesmith.evaluate.memorisation import memorisation
from tunesmith.evaluate.must_not_break import Prompt, ask_prompts
from tunesmith.evaluate.questions import choose_rows, cluster_ids, question_of
from tunesmith.evaluate.refusals import is_refusal
from tunesmith.records import Record, Sample
from tunesmith.store import Store

__all__ = ["RUNS_ON", "SCALES", "safety_details", "safety_warnings", "scale_sweep"]

RUNS_ON = 0.9
"""A model that ends a smaller share of its answers than this is said to run on."""
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
_MAX_ROWS = 64
"""Validation rows of a sweep."""


def safety_details(
    tuned: Arm,
    base: Arm | None,
    *,
    train: Sequence[Record],
    test: Sequence[Record],
    answers: Sequence[Sample],
    config: EvaluateConfig,
    prompts: Sequence[Prompt] = (),
) -> dict[str, Any]:
    """Measure everything that a report says under `safety`.

    Args:
        tuned: the fine-tuned model; an `AskedOnce` answers the test questions from memory.
        base: what it began as; None where it began from scratch.
        train: the rows it learned.
        test: the rows it was asked.
        answers: what came of them, for every arm.
        config: the thresholds.
        prompts: those that must not break.

    Returns:
        Plain values: `forgetting`, `must_not_break`, `refusals`, `stopping`, `memorisation`, and under `failed` a sentence for each check
        that stands against promotion. What does not arise is None.
    """
    names = [name for name, arm in (("base", base), ("tuned", tuned)) if arm is not None]
    settings = config.safety
    forgetting = measure_forgetting(tuned, base, seed=config.seed) if base is not None else None
    asked = ask_prompts(prompts, tuned=tuned, base=base) if prompts else None
    by_rote = {
        name: memorisation(
            answers,
            arm=name,
            test=test,
            train=train,
            min_words=settings.min_words,
            min_characters=settings.min_characters,
        )
        for name in names
    }
    found: dict[str, Any] = {
        "forgetting": forgetting,
        "must_not_break": asked,
        "refusals": {
            name: {"num_answers": len(answers), "num_refused": sum(is_refusal(row.answers.get(name, "")) for row in answers)}
            for name in names
        },
        "stopping": _stopping({"base": base, "tuned": tuned}, test=test, answers=answers, config=config),
        "memorisation": by_rote,
    }
    return found | {"failed": list(_failed(found, max_forgetting=settings.max_forgetting))}


def safety_warnings(details: Mapping[str, Any]) -> list[str]:
    """What of `safety_details` its user should be told at once."""
    found = list(details["failed"])
    forgetting = details["forgetting"]
    if forgetting and forgetting["reading"] == "clear":
        found.append(
            forgetting_in_words(details)[:-1]
            + ". A lower learning rate, fewer epochs, or adapters where every weight was trained, keep more of what the base knew"
        )
    stopping = (details["stopping"] or {}).get("tuned")
    if stopping and stopping["share"] < RUNS_ON:
        found.append(
            f"only {stopping['num_ended']} of {stopping['num_answers']} answers end within {stopping['max_new_tokens']} tokens. "
            "Raise evaluate.max_new_tokens if answers are meant to be longer; else the model has not learned where to stop"
        )
    return found


def scale_sweep(ref: str, *, store: Store, scales: Sequence[float] = SCALES) -> dict[str, Any]:
    """How much of an adapter to keep: its scale against what it has learned and what it has forgotten.

    Measured are the validation rows of the version, at most 64, and the general probe. Recommended is the scale that forgets least of
    those whose loss on the validation rows is not clearly worse than the best one's (95 %, paired, whole clusters).

    Args:
        ref: a version with an adapter, such as `boutique@3`.
        store: the workspace.
        scales: factors of the adapter; 1 is as it was trained.

    Returns:
        Plain values: `points` (`scale`, `validation_loss` in nats per token, `probe` in bits per byte), `best`, `recommended`, and why.

    Raises:
        NotFound: there is no such version.
        ModelError: it has no adapter.
        DataError: it has no validation rows, or nothing in them to score.
    """
    from tunesmith.pipeline.versions import open_version, snapshot_of

    snapshot = load_snapshot(store, snapshot_of(ref, store=store))
    rows = load_split(store, snapshot, split="validation") if snapshot.splits.get("validation") else []
    if not rows:
        raise DataError(f"{ref} has no validation rows, so there is nothing to choose a scale on. Set data.split.validation")
    rows = [rows[place] for place in choose_rows(rows, max_rows=_MAX_ROWS)]
    model = open_version(ref, store=store)
    return sweep({scale: model.scaled(scale) for scale in scales}, rows=rows) | {"ref": ref}


def sweep(arms: Mapping[float, Arm], *, rows: Sequence[Record]) -> dict[str, Any]:
    """The same for arms that are at hand, by their scale."""
    outcomes = {
        scale: [Outcome(row, likelihood=found) for row, found in zip(rows, arm.likelihood(rows), strict=True)]
        for scale, arm in arms.items()
    }
    probe = {scale: bits_per_byte(arm.likelihood(general_probe().records)) for scale, arm in arms.items()}
    measured = {f"{scale:g}": {"perplexity": likelihood_statistics(found)["perplexity"]} for scale, found in outcomes.items()}
    clusters = cluster_ids(rows)
    losses = {
        scale: float(np.log(score["perplexity"].value))
        for scale, score in zip(arms, compare(measured, clusters=clusters, seed=0).scores.values(), strict=True)
    }
    best = min(losses, key=lambda scale: (losses[scale], scale))
    beside = compare(measured, clusters=clusters, seed=0, baseline=f"{best:g}").differences
    low = {scale: score.low for scale in arms if scale != best and (score := beside[f"{scale:g}"].get("perplexity"))}
    as_good = [best, *(scale for scale, bound in low.items() if bound is not None and bound <= 0)]
    recommended = min(as_good, key=lambda scale: (probe[scale], scale))
    return {
        "points": [
            {"scale": scale, "validation_loss": losses[scale], "probe": probe[scale], "is_as_good": scale in as_good}
            for scale in arms
        ],
        "best": best,
        "recommended": recommended,
        "num_rows": len(rows),
        "because": _because(best, recommended=recommended, probe=probe),
    }


def _because(best: float, *, recommended: float, probe: Mapping[float, float]) -> str:
    if recommended == best:
        return f"Scale {best:g} has the lowest validation loss, and no scale that does as well forgets less."
    return (
        f"Scale {recommended:g} does as well on the validation rows as the best ({best:g}) as far as they can tell, and forgets less: "
        f"{probe[recommended]:.3f} in place of {probe[best]:.3f} bits per byte of general text."
    )


def _stopping(
    arms: Mapping[str, Arm | None], *, test: Sequence[Record], answers: Sequence[Sample], config: EvaluateConfig
) -> dict[str, Any] | None:
    """Share of answers that end by themselves, for the arms that tell."""
    asked = {row.record for row in answers}
    questions = [question for record in test if record.id in asked and (question := question_of(record)) is not None]
    found: dict[str, Any] = {}
    for name, arm in arms.items():
        if not isinstance(arm, AskedOnce) or not questions:
            continue
        ends = [
            answered.has_ended
            for answered in arm.answer([one.prompt for one in questions], tools=[one.tools for one in questions])
            if answered.has_ended is not None
        ]
        if ends:
            share = sum(ends) / len(ends)
            found[name] = {
                "num_answers": len(ends),
                "num_ended": sum(ends),
                "share": share,
                "max_new_tokens": config.max_new_tokens,
            }
    return found or None


def _failed(found: Mapping[str, Any], *, max_forgetting: float | None) -> list[str]:
    failed: list[str] = []
    asked = found["must_not_break"] or {"counts": {}, "rows": []}
    for reading, words in (("broken", "is answered wrongly now"), ("refusal lost", "is refused no more")):
        if number := asked["counts"].get(reading):
            first = next(row for row in asked["rows"] if row["reading"] == reading)
            rows = "prompt" if number == 1 else "prompts"
            failed.append(f"{number} {rows} of evaluate.must_not_break: {first['source']} {words}")
    forgetting = found["forgetting"]
    if forgetting and max_forgetting is not None and forgetting["reading"] != "unknown":
        percent = forgetting["percent"]
        if percent is None or percent > max_forgetting:
            rise = "without bound" if percent is None else f"by {percent:.1f} %"
            failed.append(
                f"bits per byte of general text rise {rise}, and evaluate.safety.max_forgetting is {max_forgetting:g} %"
            )
    return failed
