"""The arms that stand beside the tuned model: the base as it is, prompted in the best ways that were found, and other models.

Everything that is chosen (how many examples, which instruction) is chosen on validation rows; the examples are training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.evaluate import Answering, EvaluateConfig, Metric
from tunesmith.evaluate.answer_log import AnswerLog
from tunesmith.evaluate.costs import Meter, Price
from tunesmith.evaluate.custom import load_metrics
from tunesmith.evaluate.endpoint import Endpoint, require_key
from tunesmith.evaluate.few_shot import Examples, sweep_examples
from tunesmith.evaluate.grounding import grounding_metric, read_sheet
from tunesmith.evaluate.instructions import Wording, edits_for, search_instruction
from tunesmith.evaluate.prompts import CHAT, Prompted, PromptTemplate, load_template
from tunesmith.evaluate.report import METRICS
from tunesmith.evaluate.term_index import FactSheet
from tunesmith.evaluate.trials import Trial
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.soft_prompt import SoftPrompt
from tunesmith.records import Record
from tunesmith.store import digest_of

__all__ = ["Arms", "Sheets", "build_arms", "meter_of", "own_digest", "read_sheets", "require_keys"]

_INSTRUCTION, _FEW_SHOT = "instruction", "few_shot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheets:
    """Files that an evaluation reads beside the rows."""

    facts: str | None = None
    template: PromptTemplate = CHAT
    own: Mapping[str, Metric] = field(default_factory=dict)
    """The user's own metrics, by name."""
    own_digests: tuple[str, ...] = ()
    """Of the files that they stand in."""

    @property
    def digest(self) -> str:
        """Of what they hold."""
        return digest_of([self.facts, self.template.text, *self.own_digests])

    def as_json(self, config: EvaluateConfig) -> dict[str, Any]:
        """What is kept of them beside a report; of the user's own metrics only what tells whether a file is still the same."""
        return {
            **({"facts": self.facts} if self.facts is not None else {}),
            **({"prompt": {"name": self.template.name, "text": self.template.text}} if self.template is not CHAT else {}),
            "own": dict(zip(config.own_metrics, self.own_digests, strict=True)),
        }

    def metrics(self, config: EvaluateConfig) -> dict[str, Metric]:
        """Metrics that rest on them, in place of the plain ones or beside them."""
        own = dict(self.own)
        if self.facts is not None and "grounding" in config.metrics:
            own["grounding"] = grounding_metric(self.facts)
        return own


@dataclass(slots=True, kw_only=True)
class Arms:
    """What was built."""

    prompted: dict[str, Answering] = field(default_factory=dict)
    """The base asked in other ways, by name."""
    tuned: dict[str, Answering] = field(default_factory=dict)
    """The tuned model asked in other ways."""
    endpoints: dict[str, Answering] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """How each was chosen, in plain values."""

    def in_words(self) -> list[str]:
        """What did not fit into the prompts that were asked, a sentence for each arm that it happened to."""
        said = []
        for name, arm in (self.prompted | self.tuned).items():
            if isinstance(arm, Prompted) and arm.num_left_out:
                said.append(
                    f"{name}: {arm.num_left_out:,} examples did not fit into the context and were left out, the farthest first"
                )
            if isinstance(arm, Prompted) and arm.num_cut_sheets:
                said.append(f"{name}: to {arm.num_cut_sheets:,} questions only the nearest lines of the fact sheet were shown")
        return said + [f"{name}: {one['summary']}" for name, one in self.reused().items()]

    def reused(self) -> dict[str, dict[str, Any]]:
        """Of each endpoint, how many answers were kept from before, and since when; none where all were asked for."""
        found = {}
        for name, arm in self.endpoints.items():
            if isinstance(arm, Endpoint) and arm.reused:
                since = min(arm.reused.values(), key=lambda kept: kept.at).when
                summary = f"{len(arm.reused):,} answers were kept from before (the oldest of {since}) and not asked for again"
                found[name] = {"summary": summary, "answers": len(arm.reused), "oldest": since}
        return found


def read_sheets(config: EvaluateConfig, *, folder: Path) -> Sheets:
    """Read the files that a recipe's `evaluate` names; relative paths count from `folder`.

    Raises:
        NotFound: a file does not exist.
        UserError: a file cannot be used.
    """
    return Sheets(
        facts=read_sheet(folder / Path(config.facts).expanduser(), named_by="evaluate.facts") if config.facts else None,
        template=load_template(folder / Path(config.prompt).expanduser()) if config.prompt else CHAT,
        own=load_metrics(config.own_metrics, folder=folder),
        own_digests=tuple(own_digest(name, folder=folder) for name in config.own_metrics),
    )


def own_digest(name: str, *, folder: Path) -> str:
    """Of a metric of the user's own: its name, and the file that it stands in, if it stands in one."""
    file = folder / name.rpartition(":")[0]
    return digest_of([name, file.read_text(encoding="utf-8") if file.is_file() else ""])


def require_keys(config: EvaluateConfig) -> None:
    """See that the endpoints' keys are there, before hours of training.

    Raises:
        EndpointError: an environment variable is not set.
    """
    for endpoint in config.endpoints:
        require_key(endpoint)


def build_arms(
    config: EvaluateConfig,
    *,
    tuned: ChatModel,
    base: ChatModel | None,
    train: list[Record],
    validation: list[Record],
    test: list[Record],
    sheets: Sheets,
    answers: Path | None = None,
    soft_prompt: SoftPrompt | None = None,
    warn: Callable[[str], None],
    on_progress: Callable[[str, int, int | None], None],
) -> Arms:
    """Build the arms that a recipe names; what they are built from is searched for here.

    Args:
        config: of the evaluation.
        tuned: the trained model.
        base: what it was trained on; None where it started from scratch, then nothing prompts it.
        train: rows that may be shown as examples.
        validation: rows on which prompts are chosen.
        test: rows that will be asked.
        sheets: files.
        answers: folder in which the answers of endpoints are kept as they come; None keeps none.
        soft_prompt: trained on the base, where the recipe names that arm.
        warn: hears why an arm that was named is left out.
        on_progress: hears what is being done, how many answers were asked for, and how many there will be.
    """
    arms = Arms(endpoints=_endpoints(config, answers=answers))
    metrics = {name: METRICS[name] for name in config.metrics} | sheets.metrics(config)
    builder = _Builder(
        config=config, train=train, asked=[*validation, *test], sheets=sheets, warn=warn, on_progress=on_progress, metrics=metrics
    )
    trial = builder.trial(validation)
    examples = Examples(train)
    if base is not None and _FEW_SHOT in config.arms and builder.has_examples(examples):
        builder.few_shot(arms.prompted, "base+few_shot", base, examples=examples, trial=trial, details=arms.details)
    if base is not None and _INSTRUCTION in config.arms:
        builder.instruction(arms.prompted, "base+instruction", base, trial=trial, details=arms.details)
    if base is not None and soft_prompt is not None:
        arms.prompted["base+soft_prompt"] = base.soft_prompted(soft_prompt.folder)
        arms.details["base+soft_prompt"] = soft_prompt.details
    if "tuned_few_shot" in config.arms and builder.has_examples(examples):
        builder.few_shot(arms.tuned, "tuned+few_shot", tuned, examples=examples, trial=trial, details=arms.details)
    return arms


def _endpoints(config: EvaluateConfig, *, answers: Path | None) -> dict[str, Answering]:
    log = AnswerLog(answers / "endpoints.jsonl") if answers is not None else None
    return {one.name: Endpoint(one, max_new_tokens=config.max_new_tokens, log=log) for one in config.endpoints}


def meter_of(config: EvaluateConfig, *, training_s: float | None) -> Meter:
    """A meter with the recipe's prices."""
    return Meter(
        prices={one.name: Price(one.price_in, one.price_out) for one in config.endpoints},
        price=Price(config.costs.price_in, config.costs.price_out),
        training_s=training_s,
        training_price=config.costs.training,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    config: EvaluateConfig
    train: list[Record]
    asked: list[Record]
    """All rows that will be asked, on which the clusters of questions are known."""
    sheets: Sheets
    metrics: Mapping[str, Metric]
    warn: Callable[[str], None]
    on_progress: Callable[[str, int, int | None], None]

    def trial(self, validation: list[Record]) -> Trial | None:
        trial = Trial(
            validation,
            metrics=self.metrics,
            max_rows=self.config.search.rows,
            on_answers=lambda done: self.on_progress("choosing prompts on validation rows", done, None),
        )
        return trial if trial.num_rows and trial.metric else None

    def has_examples(self, examples: Examples) -> bool:
        if not examples:
            self.warn("no training row is a single question with an answer, so no prompt with examples is tried")
        return len(examples) > 0

    def few_shot(
        self,
        arms: dict[str, Answering],
        name: str,
        arm: ChatModel,
        *,
        examples: Examples,
        trial: Trial | None,
        details: dict[str, Any],
    ) -> None:
        def make(number: int) -> Prompted:
            return self._prompted(arm, demonstrate=examples.showing(number))

        swept = sweep_examples(make, trial=trial)
        arms[name] = swept.arm
        details[name] = {"prompt": self._prompt_facts(), "num_candidates": len(examples), **swept.details}

    def instruction(
        self, arms: dict[str, Answering], name: str, arm: ChatModel, *, trial: Trial | None, details: dict[str, Any]
    ) -> None:
        if trial is None:
            self.warn("there are no validation rows to choose an instruction on, so that arm is left out")
            return
        sheet = FactSheet(self.sheets.facts) if self.sheets.facts else None

        def make(wording: Wording) -> Prompted:
            return self._prompted(arm, instruction=wording.instruction, facts=sheet if wording.has_facts else None)

        found = search_instruction(
            make,
            trial=trial,
            edits=edits_for(self.train, has_facts=sheet is not None),
            max_answers=self.config.search.answers,
        )
        arms[name] = make(found.wording)
        details[name] = {"prompt": self._prompt_facts(), **found.details}

    def _room(self, arm: ChatModel) -> int:
        return max(arm.max_length - self.config.max_new_tokens, 1)

    def _prompted(self, arm: ChatModel, **parts: Any) -> Prompted:
        return Prompted(arm, template=self.sheets.template, asked=self.asked, room=self._room(arm), **parts)

    def _prompt_facts(self) -> dict[str, Any]:
        template = self.sheets.template
        return {"name": template.name, "version": template.version, "digest": template.digest}
