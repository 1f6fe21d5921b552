"""What a version was judged by when it was made, to judge it by again: settings, fact sheet, prompt, metrics of the user's own, and arms.

Texts are kept beside the report. Code is not, for a store holds nothing that is run: a metric of the user's own is taken from its file in
the current folder, and only if that is, letter for letter, what judged the version before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import UserError
from tunesmith.evaluate import EvaluateConfig
from tunesmith.evaluate.config import SafetyConfig
from tunesmith.evaluate.custom import load_metrics
from tunesmith.evaluate.prompts import CHAT, PromptTemplate
from tunesmith.pipeline.arms import Sheets, own_digest
from tunesmith.pipeline.evaluating import SHEETS, stored_report
from tunesmith.records import ModelVersion
from tunesmith.store import Store

__all__ = ["Judging", "judged_by"]

_OF_RECIPE = "recipe"
_ALWAYS = "zero_shot"
_OF_BASE = ("few_shot", "instruction")
_KNOWN = (*_OF_BASE, "tuned_few_shot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """By what to judge."""

    config: EvaluateConfig
    """Its arms and endpoints are those that were asked for, and not more."""
    sheets: Sheets


def judged_by(
    version: ModelVersion, *, store: Store, arms: Sequence[str] = (), has_base: bool, warn: Callable[[str], None]
) -> Judging:
    """What a version's recipe said of evaluation, as far as it was kept; the defaults where the version has no report.

    Args:
        version: a registered one.
        store: the workspace.
        arms: those to ask again: names of arms, names of the recipe's endpoints, or `recipe` for all that the recipe named.
        has_base: whether there is a base to be prompted.
        warn: hears what is missing, and what is left out for that.

    Raises:
        UserError: there is no such arm, or it cannot be asked.
    """
    report = stored_report(version, store=store)
    given = report.details.get("reproduce", {}).get("evaluate", {}) if report else {}
    config = EvaluateConfig.model_validate({name: given[name] for name in EvaluateConfig.model_fields if name in given})
    wanted = _wanted(arms, config=config, version=version, has_report=report is not None, has_base=has_base, warn=warn)
    config = config.model_copy(update={**wanted, "must_not_break": None, "safety": SafetyConfig()})
    file = store.artefacts.get(version.reports[-1]).path / SHEETS if version.reports else None
    kept: dict[str, Any] = orjson.loads(file.read_bytes()) if file is not None and file.is_file() else {}
    config, sheets = _with_texts(config, kept, version=version, warn=warn)
    return _with_own(config, sheets, kept.get("own", {}), version=version, warn=warn)


def _wanted(
    arms: Sequence[str],
    *,
    config: EvaluateConfig,
    version: ModelVersion,
    has_report: bool,
    has_base: bool,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    endpoints = {one.name: one for one in config.endpoints}
    names = [name for name in dict.fromkeys(arms) if name != _ALWAYS]
    if _OF_RECIPE in names:
        if not has_report:
            raise UserError(
                f"{version.ref} has no report, so what its recipe asked for is not known. Name the arms: {', '.join(_KNOWN)}"
            )
        names = list(dict.fromkeys([*(name for name in names if name != _OF_RECIPE), *config.arms, *endpoints]))
        anew = [name for name in names if name not in {_ALWAYS, *_KNOWN, *endpoints}]
        if anew:
            warn(f"{', '.join(anew)} must be trained, which `tunesmith run` does: left out here")
        names = [name for name in names if name in endpoints or name in (_KNOWN if has_base else ("tuned_few_shot",))]
    for name in names:
        if name not in {*_KNOWN, *endpoints}:
            of_recipe = f", its endpoints {', '.join(endpoints)}" if endpoints else ""
            raise UserError(f"--arms: {name!r} is unknown. Known for {version.ref}: {', '.join(_KNOWN)}{of_recipe}, or `recipe`")
        if name in _OF_BASE and not has_base:
            raise UserError(
                f"--arms: {name} prompts the base, and {version.ref} started from scratch. It can have tuned_few_shot"
            )
    return {
        "arms": tuple(name for name in names if name in _KNOWN),
        "endpoints": tuple(endpoints[name] for name in names if name in endpoints),
    }


def _with_texts(
    config: EvaluateConfig, kept: Mapping[str, Any], *, version: ModelVersion, warn: Callable[[str], None]
) -> tuple[EvaluateConfig, Sheets]:
    sheets = Sheets(facts=kept.get("facts"), template=PromptTemplate(**kept["prompt"]) if "prompt" in kept else CHAT)
    older = f"of {version.ref} was not kept, for it was made before that was done"
    if config.facts is not None and sheets.facts is None:
        warn(f"the fact sheet {older}: grounding is left out, and an instruction shows no facts")
        others = tuple(name for name in config.metrics if name != "grounding")
        config = config.model_copy(update={"facts": None, "metrics": others or ("perplexity",)})
    if config.prompt is not None and "prompt" not in kept:
        if config.arms:
            warn(f"the layout of prompts {older}: the plain one is used")
        config = config.model_copy(update={"prompt": None})
    return config, sheets


def _with_own(
    config: EvaluateConfig, sheets: Sheets, digests: Mapping[str, str], *, version: ModelVersion, warn: Callable[[str], None]
) -> Judging:
    folder, same = Path(), []
    for name in config.own_metrics:
        if name in digests and own_digest(name, folder=folder) == digests[name]:
            same.append(name)
        else:
            file = name.rpartition(":")[0]
            there = "is not the file that judged" if (folder / file).is_file() else "does not stand in this folder, as it did for"
            warn(f"{name} is left out: {file} {there} {version.ref}. Its recipe's folder, with the file as it was, has it")
    own = replace(sheets, own=load_metrics(same, folder=folder), own_digests=tuple(digests[name] for name in same))
    return Judging(config=config.model_copy(update={"own_metrics": tuple(same)}), sheets=own)
