"""What a recipe says about cleaning: the steps by name, and the settings of those that have any.

A step is written as its name (`pii`) or as a mapping of its name to its settings (`{language: {keep: [en, de]}}`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

__all__ = [
    "BoilerplateSettings",
    "CleanStep",
    "ConflictSettings",
    "DecontaminateSettings",
    "LabelSettings",
    "LanguageSettings",
    "LengthSettings",
    "NearDuplicatesSettings",
    "PiiSettings",
    "SemanticDuplicatesSettings",
    "Settings",
    "StepName",
    "named",
]

StepName = Literal[
    "unicode",
    "mojibake",
    "whitespace",
    "end_marks",
    "boilerplate",
    "language",
    "length",
    "repetition",
    "secrets",
    "pii",
    "exact_duplicates",
    "near_duplicates",
    "semantic_duplicates",
    "conflicting_answers",
    "label_errors",
    "decontaminate",
]
PiiType = Literal["email", "phone", "card", "iban", "ip", "mac", "national_id"]


class Settings(BaseModel):
    """Of one step."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PiiSettings(Settings):
    """What counts as personal data."""

    types: Annotated[tuple[PiiType, ...], Field(min_length=1)] = get_args(PiiType)
    """What is looked for."""

    regions: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = ()
    """A region is two capitals, such as GB (ISO 3166). Telephone numbers of these are found without a word such as "call" beside them."""

    names: bool = False
    """Names of people and places too, found by a language model. Needs the extra `presidio`, and is slow."""

    model: str = "en_core_web_lg"
    """The spaCy model that finds names; it must be installed."""

    IRRELEVANT: ClassVar[Mapping[str, Callable[[PiiSettings], str | None]]] = {
        "model": lambda settings: None if settings.names else "names is false",
    }


class NearDuplicatesSettings(Settings):
    """What counts as nearly the same."""

    threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.8
    """Jaccard similarity of character 5-grams, above 0 and up to 1."""


class SemanticDuplicatesSettings(Settings):
    """What counts as the same in other words."""

    threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.95
    """Cosine of the texts' vectors, above 0 and up to 1."""


class DecontaminateSettings(Settings):
    """What tests a training row must not hold."""

    against: tuple[str, ...] = ()
    """Files of tests, relative to the recipe's folder. The recipe's own test rows are looked for in any case, after the split."""

    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    """Share of a test's question, from above 0 to 1, from which a row holds it."""

    likeness: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.7
    """Jaccard similarity of two questions, above 0 and up to 1, from which they are nearly the same."""


class BoilerplateSettings(Settings):
    """What counts as repeated across documents."""

    min_documents: Annotated[int, Field(ge=2)] = 10
    """A line at the head or foot of at least this many documents is not theirs."""


class LanguageSettings(Settings):
    """Which languages stay."""

    keep: Annotated[tuple[Annotated[str, Field(pattern="^[a-z]{2,3}$")], ...], Field(min_length=1)]
    """Languages that stay, two small letters each, such as en (ISO 639-1). Texts too short to be sure of stay too."""


class LengthSettings(Settings):
    """Bounds in characters."""

    min_characters: Annotated[int, Field(ge=0)] = 2
    """Characters of a row, at least, its questions included."""

    max_characters: Annotated[int, Field(ge=1)] = 1_000_000
    """Characters of a row, at most."""

    min_answer_characters: Annotated[int, Field(ge=0)] = 1
    """Characters of every answer that is learned, at least."""


class ConflictSettings(Settings):
    """What becomes of a question with different answers."""

    drop: Literal["none", "later", "all"] = "none"
    """`none` only counts them; `later` keeps the first answer; `all` keeps none."""


class LabelSettings(Settings):
    """What becomes of a label that is likely wrong."""

    likely_wrong: Literal["report", "drop"] = "report"
    """Whether such rows are only counted and shown, or dropped."""


class CleanStep(Settings):
    """A step with settings of its own: one key, the step's name."""

    boilerplate: BoilerplateSettings | None = None
    """Headers, footers, notices and quoted mails around a text go."""

    language: LanguageSettings | None = None
    """Rows in other languages are dropped."""

    length: LengthSettings | None = None
    """Rows too short or too long are dropped."""

    conflicting_answers: ConflictSettings | None = None
    """The same question with different answers."""

    label_errors: LabelSettings | None = None
    """Labels of texts that are likely wrong."""

    pii: PiiSettings | None = None
    """Personal data becomes placeholders such as `[EMAIL_1]`."""

    near_duplicates: NearDuplicatesSettings | None = None
    """Of rows that say nearly the same the first is kept."""

    semantic_duplicates: SemanticDuplicatesSettings | None = None
    """Of rows that say the same in other words the first is kept."""

    decontaminate: DecontaminateSettings | None = None
    """Rows that hold what a test asks are dropped."""

    @model_validator(mode="after")
    def _is_one_step(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"a step is one name with its settings; here are {len(self.model_fields_set)}")
        return self

    @model_serializer(mode="wrap")
    def _without_other_steps(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name in self.model_fields_set}


def named(step: StepName | CleanStep) -> tuple[str, Settings | None]:
    """A step's name and settings; None where it has none, or none were given."""
    if isinstance(step, str):
        return step, None
    (name,) = step.model_fields_set
    settings: Settings = getattr(step, name)
    return name, settings
