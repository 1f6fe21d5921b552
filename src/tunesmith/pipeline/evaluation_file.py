"""A file to judge a version on, read as the version's recipe reads its own rows.

A version that learned under an instruction, or whose keys a mapping names, must be asked in the same way, or it is judged on another task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data import read
from tunesmith.data.collect import sources_of
from tunesmith.data.config import SourceConfig
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Record, Role

__all__ = ["FileRows", "read_file"]


class FileRows(NamedTuple):
    """What a file holds, and how it was read."""

    rows: list[Record | Dropped]
    formats: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        """The usable ones, equal ones too."""
        return [row for row in self.rows if isinstance(row, Record)]


def read_file(data: Path, *, names: Sequence[str], recipe: Mapping[str, Any] | None, warn: Callable[[str], None]) -> FileRows:
    """Read a file.

    Args:
        data: its path.
        names: `name=key`, which of its keys is which; these go before the recipe's.
        recipe: the version's, as it was stored. What all of its sources have in common is taken from them: the mapping, where the file
            has its keys, and the instruction, where the file's questions do not begin with it.
        warn: hears what was taken from the recipe.
    """
    (source,) = sources_of([str(data)], names=names)
    sources = recipe["data"]["sources"] if recipe else []
    mapping = None if names else _common(sources, "map")
    if mapping and _has_keys(mapped := source.model_copy(update={"map": mapping, "roles": _common(sources, "roles") or {}})):
        source = mapped
        keys = ", ".join(f"{name}={key}" for name, key in mapping.items())
        warn(f"rows of {data} are read as the version's recipe reads its own: {keys}")
    found = _rows(source)
    if len({one["instruction"] for one in sources}) > 1:
        warn(
            f"the sources of the version's recipe ask under unlike instructions, so the questions of {data} are asked as they stand"
        )
    elif (instruction := _common(sources, "instruction")) and _begin_with(found.records, instruction):
        rows = [replace(row, instruction=instruction) if isinstance(row, Record) else row for row in found.rows]
        found = found._replace(rows=rows)
    elif instruction:
        found = _rows(source.model_copy(update={"instruction": instruction}))
        warn(f"questions of {data} are asked under the instruction of the version's recipe: {instruction}")
    return found


def _has_keys(source: SourceConfig) -> bool:
    """Whether a source's mapping finds any of its keys."""
    try:
        return any(isinstance(row, Record) for row in read(source, folder=Path()).rows)
    except DataError:
        return False


def _rows(source: SourceConfig) -> FileRows:
    reading = read(source, folder=Path())
    return FileRows(list(reading.rows), tuple(reading.formats.values()))


def _common(sources: Sequence[Mapping[str, Any]], setting: str) -> Any:
    """What all sources say of a setting; None where they differ."""
    values = [one[setting] for one in sources]
    return values[0] if values and all(value == values[0] for value in values) else None


def _begin_with(records: Sequence[Record], instruction: str) -> bool:
    first = (next((message.content for message in record.messages if message.role is Role.USER), None) for record in records)
    return all(question.startswith(instruction) for question in first if question is not None)
