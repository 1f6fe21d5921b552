"""A version's card: a README.md in the hub's format that says what the version is, with the stored figure behind every claim.

What was not measured is said to be not measured. The parts are in `card_parts.py`; text from rows and recipes passes through
`card_markup.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from tunesmith.errors import UserError
from tunesmith.evaluate.reading import ordered_metrics, reading_of
from tunesmith.pipeline import card_parts as parts
from tunesmith.pipeline.card_markup import bullets, escaped, front_matter
from tunesmith.pipeline.licences import Fit, fit
from tunesmith.pipeline.version_facts import VersionFacts, facts_of
from tunesmith.records import ModelVersion
from tunesmith.store import Store

__all__ = ["version_card", "write_card"]

_LEAST_SHARE = 0.1
"""Of the rows, those too short to be sure of included, that a language needs to be named."""


def version_card(version: ModelVersion, store: Store) -> str:
    """The card of a version as Markdown with YAML front matter, as `huggingface_hub.ModelCard` reads it.

    Equal stores give equal cards: nothing in it depends on when or where it is written.

    Args:
        version: a registered version.
        store: where it is kept.

    Raises:
        NotFound: its model is gone.
        BrokenArtefact: its model was altered.
    """
    facts = facts_of(version, store=store)
    fits = _fit(facts)
    sections = (
        ("How good it is", parts.results(facts)),
        ("Where it got worse", parts.worse(facts)),
        ("What is proved of it", parts.proofs(facts)),
        ("Limits", parts.limits(facts)),
        ("What it learned from", parts.data(facts)),
        ("Licences", bullets([escaped(sentence) for sentence in fits.sentences]) + parts.licences(facts)),
        ("How it was trained", parts.training(facts)),
        ("Make it again", parts.again(facts)),
        ("Use it", parts.use(facts)),
    )
    body = "\n".join(f"## {title}\n\n{text.rstrip()}\n" for title, text in sections)
    return f"{front_matter(_front(facts, fits))}\n# {version.ref}\n\n{parts.opening(facts)}\n\n{body}"


def write_card(version: ModelVersion, *, store: Store, out: Path) -> None:
    """Write the card into a file.

    Raises:
        UserError: it cannot be written there.
    """
    text = version_card(version, store)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}). Name a file in a folder that exists") from error


def _fit(facts: VersionFacts) -> Fit:
    found: Counter[str] = Counter()
    for licences in facts.rows.licences.values() if facts.rows else ():
        found.update(licences)
    named = [name for name in found if name]
    if facts.rows is None:
        return Fit(licence=None, sentences=("The rows are gone from the store, so nothing can be said of their licences.",))
    return fit(facts.base_licence, named, has_base=facts.has_base, num_unnamed=found[""])


def _front(facts: VersionFacts, fits: Fit) -> dict[str, Any]:
    version = facts.version
    front: dict[str, Any] = {"license": fits.licence or "other"}
    if fits.licence is None:
        front |= {"license_name": "not-settled-see-card"}
    if languages := _languages(facts):
        front["language"] = languages
    if parts.is_public(facts.base_name) and facts.has_base:
        front["base_model"] = facts.base_name
        front["base_model_relation"] = "adapter" if facts.is_adapter else "finetune"
    if datasets := _datasets(facts):
        front["datasets"] = datasets
    front |= {"library_name": "peft" if facts.is_adapter else "transformers", "pipeline_tag": "text-generation"}
    front["tags"] = ["tunesmith", facts.training["train"]["method"]]
    if results := _results(facts):
        front["model-index"] = [{"name": version.ref, "results": results}]
    return front


def _languages(facts: VersionFacts) -> list[str]:
    """Of the training rows, as told from some of them; none where their texts are too short to be sure."""
    from tunesmith.data.clean.language import language_in

    sample = facts.rows.sample if facts.rows else ()
    found = Counter(language_in(record) for record in sample)
    found.pop("unknown", None)
    least = _LEAST_SHARE * max(len(sample), 1)
    return [language for language, count in found.most_common() if count >= least]


def _datasets(facts: VersionFacts) -> list[str]:
    """Sources that are data sets of the hub, by their id."""
    sources = facts.recipe["data"]["sources"] if facts.recipe else []
    named = [source["path"].removeprefix("hf://") for source in sources if source["path"].startswith("hf://")]
    ids = ["/".join(name.split("@")[0].split("/")[:2]) for name in named]
    return [name for name in dict.fromkeys(ids) if parts.is_public(name)]


def _results(facts: VersionFacts) -> list[dict[str, Any]]:
    """The subject's figures, as the hub's model index has them; a figure that is not finite is none."""
    report = facts.report
    if report is None or facts.rows is None:
        return []
    figures = report.scores.get(report.subject, {})
    metrics = [
        {"type": metric, "value": round(score.value, 4), "name": reading_of(metric).label}
        for metric in ordered_metrics(report)
        if (score := figures.get(metric)) is not None and math.isfinite(score.value) and not metric.startswith("f1:")
    ]
    data = {"name": f"held-out rows of {facts.version.name}", "type": f"tunesmith-{facts.rows.snapshot.id[:12]}", "split": "test"}
    return [{"task": {"type": "text-generation"}, "dataset": data, "metrics": metrics}] if metrics else []
