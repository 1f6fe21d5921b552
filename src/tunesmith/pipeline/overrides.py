"""`--set train.learning_rate=1e-4`: values given on the command line, laid over those of the file.

The key is a dotted path; a position in a list is `.0` or `[0]`. The value is read as YAML: `[...]`, `{...}` and quoted text as
such, anything else as one unquoted scalar, so that `*.jsonl` needs no quotes of its own. Later options win.
Relative paths in values count from the recipe's folder, as in the file.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

from tunesmith.errors import Problem
from tunesmith.pipeline.yaml_lines import Document, KeyPath, Place, dotted, is_storable, parse_scalar, parse_yaml, shorten

__all__ = ["apply_overrides"]


def apply_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """Lay `key=value` options over a document; what cannot be placed is added to its problems."""
    for override in overrides:
        document = _apply(document, override)
    return document


class _Misplaced(ValueError):
    """The option names no place; the message says why."""


def _apply(document: Document, override: str) -> Document:
    origin = "--set " + shorten(override).encode(errors="replace").decode()
    key, equals, text = override.partition("=")
    root = copy.deepcopy(document.value)
    try:
        if not equals:
            raise _Misplaced("write it as key=value, such as train.epochs=3")
        path = _path(key.strip())
        given = _read(text)
        if given.problems:
            raise _Misplaced("; ".join(problem.message for problem in given.problems))
        path = _put(root, path, given.value)
    except _Misplaced as error:
        return replace(document, problems=(*document.problems, Problem(None, origin, str(error))))
    places = {at: place for at, place in document.places.items() if at[: len(path)] != path}
    places |= {(*path, *at): Place(None, place.raw, origin) for at, place in given.places.items()}
    # Mappings on the way that the option created are its work too.
    places |= {path[:end]: Place(None, None, origin) for end in range(1, len(path)) if path[:end] not in places}
    broken = frozenset(at for at in document.broken if at[: len(path)] != path)
    return replace(document, value=root, places=places, broken=broken)


def _read(text: str) -> Document:
    return parse_yaml(text) if text.lstrip().startswith(("[", "{", '"', "'")) else parse_scalar(text)


def _path(key: str) -> KeyPath:
    items = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    if not all(items) or not is_storable(key):
        raise _Misplaced("write the key as a dotted path, such as data.sources.0.path")
    return tuple(items)


def _put(root: object, path: KeyPath, value: object) -> KeyPath:
    """Set a value below `root`, making the mappings on the way; returns the path with its list positions as integers."""
    at: list[str | int] = []
    here = root
    for depth, item in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, list):
            index = _index(str(item), here, tuple(at))
            at.append(index)
            if last:
                here[index] = value
            here = here[index]
        elif isinstance(here, dict):
            at.append(item)
            if last:
                here[item] = value
            elif here.get(item) is None:
                here[item] = {}
            here = here[item]
        else:
            raise _Misplaced(f"`{dotted(tuple(at))}` is {shorten(str(here))!r}, which has no keys below it")
    return tuple(at)


def _index(item: str, entries: list[object], path: KeyPath) -> int:
    if item.isdecimal() and int(item) < len(entries):
        return int(item)
    known = f"0 to {len(entries) - 1}" if len(entries) > 1 else "0" if entries else "none, for it is empty"
    raise _Misplaced(f"`{dotted(path)}` is a list: after it comes a position ({known}), not {item!r}")
