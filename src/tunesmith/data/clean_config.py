"""What a recipe says about cleaning: the steps by name, and the settings of those that have any.

A step is written as its name (`pii`) or as a mapping of its name to its settings (`{language: {keep: [en, de]}}`).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

__all__ = ["CleanStep", "StepName", "named"]

StepName = Literal["unicode", "mojibake", "whitespace", "exact_duplicates"]


class Settings(BaseModel):
    """Of one step."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CleanStep(Settings):
    """A step with settings of its own: one key, the step's name."""

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
