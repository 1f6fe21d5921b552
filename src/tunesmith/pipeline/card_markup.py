"""Text from rows and recipes as it may stand on a card: in Markdown it marks up nothing, in YAML it is a string."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

__all__ = ["block", "bullets", "code", "escaped", "front_matter", "recipe_block", "table", "without_paths"]

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
"""Control characters, marks that turn the direction of what follows or take no room, and halves of characters."""
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")
_ADDRESS = re.compile(r"(?i)\b(https?:|ftp:|mailto:)(?=\S)|\bwww\.(?=\S)|(?<=\w)@(?=[\w-]+\.\w)")
"""What some readers of Markdown turn into a link by itself."""
_SECRET = re.compile(r"(?<=://)[^/\s@]+@")
_SAID = "instruction"
_PATH = re.compile(r"^(?:~|/|[A-Za-z]:[\\/])")


def escaped(text: object) -> str:
    """A text on one line in which nothing is markup, HTML or a link."""
    line = _MARKS.sub(r"\\\1", _visible(" ".join(str(text).split())))
    line = re.sub(r"^([-+=])", r"\\\1", re.sub(r"^(\d+)([.)])", r"\1\\\2", line))  # else a list, or a heading above
    return _ADDRESS.sub(lambda found: f"{found[0][0]}<!-- -->{found[0][1:]}", line)


def code(text: object) -> str:
    """A name as code: nothing in it is markup. It may stand in a table too."""
    line = _visible(" ".join(str(text).split()))
    if not line:
        return ""
    if "|" in line:  # a table is divided there even inside code, and outside of a table the stroke must not show
        return escaped(line)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    room = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{room}{line}{room}{fence}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; empty where there are no rows."""
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def bullets(lines: Sequence[str]) -> str:
    """A list of lines that are Markdown already; empty where there are none."""
    return "".join(f"- {line}\n" for line in lines)


def block(text: str, *, language: str) -> str:
    """A block of code, with a fence that the text does not hold."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def front_matter(values: Mapping[str, Any]) -> str:
    """YAML between its marks. Strings are quoted where YAML would read them otherwise."""
    return f"---\n{_yaml(values)}---\n"


def _yaml(values: object) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=False, width=1_000_000)
    return text


def without_paths(value: Any, *, key: str = "") -> Any:
    """Plain values in which a path of this machine is its last name alone, and an address has no password.

    Args:
        value: of a recipe.
        key: under which it stands; what is said to a model (`instruction`) is no path, whatever it begins with.
    """
    if isinstance(value, Mapping):
        return {name: without_paths(item, key=str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item, key=key) for item in value]
    if not isinstance(value, str) or key == _SAID:
        return value
    if _PATH.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return _SECRET.sub("", value)


def recipe_block(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML in a block."""
    return block(_yaml(without_paths(recipe)), language="yaml")


def _visible(text: str) -> str:
    return _INVISIBLE.sub(lambda found: f"U+{ord(found[0]):04X}", text)
