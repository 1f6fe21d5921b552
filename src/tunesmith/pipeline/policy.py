"""`promote` in a recipe: the rule by which a new version becomes champion, as it is written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

__all__ = ["SCHEMA", "Policy", "Rule", "checked", "policy_of"]

Rule = Literal["if_better", "if_not_worse", "manual", "always", "never"]
_PLAIN = ("if_better", "manual", "always", "never")
_CHOICES = "if_better, if_not_worse(MARGIN), manual, always, never"
_WITH_MARGIN = re.compile(r"if_not_worse\(\s*(\d+(?:\.\d+)?)\s*\)")
SCHEMA: Mapping[str, Any] = {
    "anyOf": [
        {"enum": list(_PLAIN)},
        {"type": "string", "pattern": r"^if_not_worse\(\s*\d+(\.\d+)?\s*\)$", "examples": ["if_not_worse(1.0)"]},
    ]
}
"""For the JSON Schema of a recipe."""


class Policy(NamedTuple):
    """A rule with its margin."""

    rule: Rule
    margin: float = 0.0
    """Of `if_not_worse`: points of a metric, or percent of a perplexity."""


def policy_of(text: str) -> Policy:
    """Read a rule.

    Raises:
        ValueError: there is no such rule, or its margin is not a number from 0.

    >>> policy_of("if_not_worse(1.5)")
    Policy(rule='if_not_worse', margin=1.5)
    """
    plain = text.strip()
    if plain in _PLAIN:
        return Policy(cast("Rule", plain))
    if (found := _WITH_MARGIN.fullmatch(plain)) is not None:
        return Policy("if_not_worse", float(found[1]))
    if plain.startswith("if_not_worse"):
        raise ValueError(f"{text!r} needs a margin of 0 or more, in points: if_not_worse(1.0)")
    near = difflib.get_close_matches(plain, (*_PLAIN, "if_not_worse(1.0)"), n=1)
    guess = f". Did you mean {near[0]}?" if near else ""
    raise ValueError(f"{text!r} is not one of {_CHOICES}{guess}")


def checked(text: str) -> str:
    """A rule as it was written, if it is one."""
    policy_of(text)
    return text.strip()
