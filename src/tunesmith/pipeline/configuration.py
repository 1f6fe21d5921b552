"""A configuration from YAML text: read, overridden, checked, and every problem reported at once.

Generic over a tree of frozen pydantic models; `recipe.py` gives it the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tunesmith.errors import Problem, RecipeError
from tunesmith.pipeline.config_problems import config_problems, problem_at
from tunesmith.pipeline.overrides import apply_overrides
from tunesmith.pipeline.relevance import unread_keys
from tunesmith.pipeline.yaml_lines import parse_yaml

__all__ = ["read_config"]

T = TypeVar("T", bound=BaseModel)


def read_config(text: str, *, model: type[T], source: str, overrides: Sequence[str] = ()) -> T:
    """Read a configuration.

    Args:
        text: the YAML.
        model: the root of a tree of pydantic models.
        source: what messages call the text, such as a path.
        overrides: `key=value` options, laid over the text.

    Raises:
        RecipeError: with everything that is wrong, ordered by line, options last.
    """
    document = parse_yaml(text)
    if document.syntax_error:
        raise RecipeError(source, document.problems)
    if not isinstance(document.value, dict):
        raise RecipeError(source, document.problems or [Problem(1, "recipe", _not_a_mapping(document.value, model))])
    document = apply_overrides(document, overrides)
    problems = list(document.problems)
    try:
        # Strict, and by way of JSON: a list may then become a tuple, but true does not become 1, nor 3 the text "3".
        config = model.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        problems += config_problems(error, model=model, document=document)
        raise RecipeError(source, _in_order(problems)) from None
    problems += [problem_at(document, path, f"is set but nothing reads it: {reason}") for path, reason in unread_keys(config)]
    if problems:
        raise RecipeError(source, _in_order(problems))
    return config


def _not_a_mapping(value: object, model: type[BaseModel]) -> str:
    required = [name for name, info in model.model_fields.items() if info.is_required()]
    needed = f"It needs the keys {', '.join(required)}" if required else "It is a mapping of keys"
    if value is None:
        return f"empty. {needed}"
    found = "a list" if isinstance(value, list) else "a single value"
    return f"{found}, not a mapping of keys. {needed}"


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
