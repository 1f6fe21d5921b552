"""What a recipe says about cleaning: the steps by name, and the settings of those that have any.

A step is written as its name (`pii`) or as a mapping of its name to its settings (`{language: {keep: [en, de]}}`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

__all__ = ["CleanStep", "PiiSettings", "Settings", "StepName", "named"]

StepName = Literal["unicode", "mojibake", "whitespace", "secrets", "pii", "exact_duplicates"]
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


class CleanStep(Settings):
    """A step with settings of its own: one key, the step's name."""

    pii: PiiSettings | None = None
    """Personal data becomes placeholders such as `[EMAIL_1]`."""

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
