"""Which keys of a configuration are read, given its other values.

A key that is set and then read by nothing is an error: `lora.rank` in a run that trains every weight would be a wish silently
ignored. Two checks make it one. A test of the recipe proves that some code reads each declared field. And a room declares,
beside its fields, which of them are read only under a condition:

    class TrainConfig(BaseModel):
        method: Literal["lora", "full"] = "lora"
        lora: LoraConfig = LoraConfig()

        IRRELEVANT: ClassVar[Mapping[str, Callable[[TrainConfig], str | None]]] = {
            "lora": lambda config: None if config.method == "lora" else f"train.method is `{config.method}`",
        }

The name on the left is a field of that class, or a dotted path below it (`"train.lora"`), so a parent can speak of two rooms
that do not know each other. The function gets the valid configuration and returns None when the field is read, or the reason
why it is not. It is called for every field of the table, set or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from tunesmith.pipeline.yaml_lines import KeyPath

__all__ = ["UnreadKey", "resolved", "unread_keys"]


class UnreadKey(NamedTuple):
    """A key that the user set and nothing reads."""

    path: KeyPath
    reason: str


def unread_keys(config: BaseModel) -> list[UnreadKey]:
    """Keys set by the user, at any depth, that nothing will read. Keys left at their default are never among them."""
    reasons = dict(_irrelevant(config, ()))
    found: list[UnreadKey] = []
    for path in _set_keys(config, ()):
        reason = next((reasons[path[:end]] for end in range(1, len(path) + 1) if path[:end] in reasons), None)
        if reason is not None:
            found.append(UnreadKey(path, reason))
    return found


def resolved(config: BaseModel) -> dict[str, Any]:
    """Plain JSON values of a configuration with every default filled in, but without the keys that nothing reads.

    Loaded again, it gives an equal configuration and an equal digest.
    """
    plain: dict[str, Any] = config.model_dump(mode="json")
    for path, _ in _irrelevant(config, ()):
        parent: Any = plain
        for item in path[:-1]:
            parent = parent.get(item, {}) if isinstance(parent, dict) else parent[item]
        parent.pop(path[-1], None)
    return plain


def _irrelevant(config: BaseModel, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Paths that nothing reads, parents before children, each with the reason."""
    for name, reason_of in getattr(type(config), "IRRELEVANT", {}).items():
        reason = reason_of(config)
        if reason is not None:
            yield (*path, *name.split(".")), reason
    for below, child in _children(config, path):
        yield from _irrelevant(child, below)


def _children(config: BaseModel, path: KeyPath) -> Iterator[tuple[KeyPath, BaseModel]]:
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield (*path, name), value
        elif isinstance(value, tuple | list):
            yield from (((*path, name, index), item) for index, item in enumerate(value) if isinstance(item, BaseModel))


def _set_keys(config: BaseModel, path: KeyPath) -> Iterator[KeyPath]:
    """The deepest keys that were given rather than filled in."""
    children = list(_children(config, path))
    for name in type(config).model_fields:
        if name not in config.model_fields_set:
            continue
        here = (*path, name)
        below = [key for at, child in children if at[: len(here)] == here for key in _set_keys(child, at)]
        yield from below or [here]
