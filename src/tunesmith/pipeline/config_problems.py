"""What pydantic found wrong with a document, in a user's words: the line, what was found, and the likely mend.

It knows pydantic's error types and no recipe: the allowed keys, ranges and choices come from the config classes. A field with the
word "share" in its description is spoken of as a share, and 15 is then guessed to mean 0.15. A validator's ValueError is shown as
it is; when its first word is a key (`hidden_size 250 is not ...`), the line is that key's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from tunesmith.errors import Problem
from tunesmith.pipeline._config_tree import Branch, Spot, fits, spot_of, value_at
from tunesmith.pipeline._wording import neither, say, unknown_key
from tunesmith.pipeline.yaml_lines import Document, KeyPath, dotted

__all__ = ["config_problems", "problem_at"]


class _Finding(NamedTuple):
    spot: Spot
    details: Any
    """pydantic's ErrorDetails."""


def config_problems(error: ValidationError, *, model: type[BaseModel], document: Document) -> list[Problem]:
    """Say everything for which a document does not fit `model`, in no particular order."""
    findings = [_Finding(spot_of(model, details["loc"]), details) for details in error.errors(include_url=False)]
    findings = [finding for finding in findings if not _is_under(finding.spot.path, document.broken)]
    problems: list[Problem] = []
    for branch in _unfitting_unions(findings, document):
        value, raw = value_at(document.value, branch.path), document.place(branch.path).raw
        problems.append(problem_at(document, branch.path, neither(value, raw, branch.members)))
        findings = [finding for finding in findings if not _is_under(finding.spot.path, {branch.path})]
    findings = [finding for finding in findings if not _is_miscounted(finding, document)]
    # Of a union, only the members that have the value's shape are worth speaking of.
    findings = [f for f in findings if all(_tried(branch, document) for branch in f.spot.branches)]
    unknown = {f.spot.path: unknown_key(model, f.spot) for f in findings if f.details["type"] == "extra_forbidden"}
    # A misspelt required key is one mistake, the unknown key, and not also a missing one.
    meant = {(*path[:-1], guess) for path, (_, guess) in unknown.items() if guess}
    for spot, details in findings:
        if spot.path in unknown:
            problems.append(problem_at(document, spot.path, unknown[spot.path][0]))
        elif not (details["type"] == "missing" and spot.path in meant):
            problems.append(_problem(spot, details, document))
    return list(dict.fromkeys(problems))


def problem_at(document: Document, path: KeyPath, message: str, *, line_of: KeyPath | None = None) -> Problem:
    """A problem with the line of its key, or named after the `--set` option that made it."""
    place = document.place(line_of or path)
    key = dotted(path) or "recipe"
    if place.origin is None:
        return Problem(place.line, key, message)
    spellings = (key, ".".join(str(item) for item in path))
    is_about_all = any(place.origin.startswith(f"--set {spelling}=") for spelling in spellings)
    return Problem(None, place.origin, message if is_about_all else f"{key}: {message}")


def _problem(spot: Spot, details: Any, document: Document) -> Problem:
    value = value_at(document.value, spot.path)
    message = say(
        spot,
        kind=details["type"],
        value=value,
        raw=document.places[spot.path].raw if spot.path in document.places else None,
        context=details.get("ctx", {}),
        otherwise=details["msg"],
    )
    line_of = None
    if details["type"] == "value_error":
        named = (*spot.path, *message.split(" ", 1)[0].strip("`:,").split("."))
        line_of = named if named in document.places else None
    return problem_at(document, spot.path, message, line_of=line_of)


def _unfitting_unions(findings: Sequence[_Finding], document: Document) -> Iterator[Branch]:
    """Unions of which no member has the value's shape, or several have and the value is none of them."""
    tried: dict[KeyPath, dict[str, Branch]] = {}
    inside: set[KeyPath] = set()
    for spot, _ in findings:
        for branch in spot.branches:
            at = tried.setdefault(branch.path, {})
            if fits(value_at(document.value, branch.path), branch.member):
                at[str(branch.member)] = branch
                if spot.path != branch.path:
                    inside.add(branch.path)
            else:
                at.setdefault("", branch)
    for path, branches in tried.items():
        num_fitting = len(branches.keys() - {""})
        if num_fitting != 1 and path not in inside:
            yield next(iter(branches.values()))


def _is_miscounted(finding: _Finding, document: Document) -> bool:
    """Whether a list is called too short only because pydantic counts its sound entries alone."""
    spot, details = finding
    if details["type"] != "too_short":
        return False
    entries = value_at(document.value, spot.path)
    return isinstance(entries, list) and len(entries) >= details["ctx"]["min_length"]


def _tried(branch: Branch, document: Document) -> bool:
    return fits(value_at(document.value, branch.path), branch.member)


def _is_under(path: KeyPath, roots: frozenset[KeyPath] | set[KeyPath]) -> bool:
    return any(path[:end] in roots for end in range(len(path) + 1))
