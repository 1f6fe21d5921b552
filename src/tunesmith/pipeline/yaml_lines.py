"""YAML text to plain values, with the line of every key: what a recipe's error messages point at.

It knows YAML and no recipe. Only mappings, lists, text, numbers, true/false and null are read; any other tag is refused, so
nothing in a file can make Python objects. Where YAML 1.1 surprises people, the reading is the expected one:

    1e-4, 1_000, 0o17     numbers (PyYAML alone reads `1e-4` as text)
    2026-11-21, 12:30     text (YAML 1.1 makes a date, and 750)
    017                   refused: 15 in YAML 1.1, 17 in YAML 1.2
    .inf, .nan, 1e999     refused: JSON cannot hold them, and a digest needs JSON
    yes, no, on, off      true and false; where text is expected the message says to quote them

A whole number may be written with a point or an exponent (`1e3`, `3.0`): it is read as the integer.
Limits: 100,000 values after aliases are expanded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import yaml

from tunesmith.errors import Problem
from tunesmith.pipeline._yaml_syntax import syntax_problem

__all__ = ["Document", "KeyPath", "Place", "dotted", "dump_yaml", "is_storable", "parse_scalar", "parse_yaml", "shorten"]

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands: keys of mappings, and positions in lists from 0."""

MAX_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"
_DECIMAL = r"(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
_RESOLVERS = {
    "bool": r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    "int": r"[-+]?(?:0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*)",
    "float": rf"[-+]?{_DECIMAL}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "null": r"~|null|Null|NULL|",
    "merge": r"<<",
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own protocol


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers  # the same, so that what is text is quoted when it must be


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Only double quotes keep the rarer line breaks: in single quotes PyYAML folds U+0085 into a space.
    return dumper.represent_scalar(_TAG + "str", text, style='"' if re.search("[\x85\u2028\u2029\r\n]", text) else None)


_Dumper.add_representer(str, _represent_text)

for _kind, _pattern in _RESOLVERS.items():
    _Loader.yaml_implicit_resolvers.setdefault(None, []).append((_TAG + _kind, re.compile(f"(?:{_pattern})\\Z")))  # type: ignore[arg-type]


class Place(NamedTuple):
    """Where a value was written."""

    line: int | None
    """From 1; None when it was not written in the file."""
    raw: str | None = None
    """An unquoted scalar as it was written, such as `no` for False."""
    origin: str | None = None
    """The `--set` option that gave the value, if one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Plain values, and where each was written."""

    value: object
    places: Mapping[KeyPath, Place]
    problems: tuple[Problem, ...] = ()
    """What is wrong with the YAML itself."""
    broken: frozenset[KeyPath] = frozenset()
    """Values that could not be read (None stands for them); their problem is listed already."""
    syntax_error: bool = False
    """The text is not YAML at all: `value` is None and means nothing."""

    def place(self, path: KeyPath) -> Place:
        """Where a value was written, or the nearest value above it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return Place(None)


def parse_yaml(text: str) -> Document:
    """Read one YAML document. Everything wrong is in `problems`; nothing is raised."""
    reading = _Reading()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        value = None if node is None else reading.value(node, ())
    except yaml.YAMLError as error:
        return Document(value=None, places={}, problems=(syntax_problem(error, text),), syntax_error=True)
    except RecursionError:
        problem = Problem(None, "YAML", "the values are nested too deeply to be a recipe")
        return Document(value=None, places={}, problems=(problem,), syntax_error=True)
    except _TooMany as error:
        problem = Problem(error.line, "YAML", f"the aliases expand to more than {MAX_VALUES:,} values")
        return Document(value=None, places={}, problems=(problem,), syntax_error=True)
    return Document(value=value, places=reading.places, problems=tuple(reading.problems), broken=frozenset(reading.broken))


def parse_scalar(text: str) -> Document:
    """Read a text as one unquoted YAML scalar: a number, true, null, or the text itself whatever characters it holds."""
    stripped = text.strip()
    patterns = _Loader.yaml_implicit_resolvers[None]  # type: ignore[index]
    tag = next((tag for tag, pattern in patterns if pattern.match(stripped)), _TAG + "str")
    reading = _Reading()
    value = reading.value(yaml.ScalarNode(tag, stripped), ())
    return Document(value=value, places=reading.places, problems=tuple(reading.problems), broken=frozenset(reading.broken))


def dump_yaml(value: object) -> str:
    """Write plain values as YAML that `parse_yaml` reads back equal: keys in their order, text quoted where it must be."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def dotted(path: KeyPath) -> str:
    """A path as messages write it: `data.sources[0].path`."""
    text = ""
    for item in path:
        text += f"[{item}]" if isinstance(item, int) else f".{item}" if text else item
    return text


def shorten(text: str, *, width: int = 60) -> str:
    """A text on one line, cut in the middle when it is longer than `width`."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 20]} ... {line[-15:]}"


def is_storable(text: str) -> bool:
    """Whether a text can stand in a file name and in JSON: no U+0000, and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


_UNSTORABLE = "U+0000 or half a surrogate pair, which no file name and no data row can hold"


class _TooMany(Exception):
    def __init__(self, line: int) -> None:
        self.line = line


class _Unreadable(ValueError):
    """A scalar that has no value; the message says why."""


@dataclass(slots=True)
class _Reading:
    """The state of one walk over a node tree."""

    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    open_nodes: set[int] = field(default_factory=set)
    num_values: int = 0

    def value(self, node: yaml.Node, path: KeyPath, *, line: int | None = None) -> object:
        """Build a node's value; `line` is that of its key, where it has one."""
        line = line or _line(node)
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            raise _TooMany(line)
        raw = node.value if isinstance(node, yaml.ScalarNode) and not node.style else None
        self.places[path] = Place(line, raw)
        if id(node) in self.open_nodes:
            self._break(path, line, "an alias stands inside the value that it names")
            return None
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
            return _scalar(node)
        except _Unreadable as error:
            self._break(path, line, str(error))
            return None
        finally:
            self.open_nodes.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        built: dict[str, object] = {}
        first_lines: dict[str, int] = {}
        merges: list[yaml.Node] = []
        for key_node, value_node in node.value:
            line = _line(key_node)
            if key_node.tag == _TAG + "merge":
                merges.append(value_node)
            elif not isinstance(key_node, yaml.ScalarNode):
                self._break((*path, "?"), line, "a key must be a plain word, not a list or a mapping")
            elif not is_storable(key_node.value):
                self._break((*path, "?"), line, f"a key holds {_UNSTORABLE}")
            elif key_node.value in built:
                here = dotted((*path, key_node.value))
                message = f"the key stands twice, first on line {first_lines[key_node.value]}. Remove one of them"
                self.problems.append(Problem(line, here, message))
            else:
                # A key is text whatever it looks like: `on:` is the key "on", not True.
                first_lines[key_node.value] = line
                built[key_node.value] = self.value(value_node, (*path, key_node.value), line=line)
        for pair in _merged_pairs(merges):
            if pair is None:
                self._break((*path, "<<"), _line(node), "`<<` takes a mapping or a list of mappings")
            elif pair[0].value not in built:
                key = str(pair[0].value)
                built[key] = self.value(pair[1], (*path, key), line=_line(pair[0]))
        return built

    def _break(self, path: KeyPath, line: int, message: str) -> None:
        self.broken.add(path)
        self.problems.append(Problem(line, dotted(path) or "YAML", message))


def _merged_pairs(merges: list[yaml.Node]) -> Iterator[tuple[yaml.ScalarNode, yaml.Node] | None]:
    """Pairs that `<<: *anchor` brings in, in order of precedence; None for a merge that is no mapping."""
    for merge in merges:
        sources = merge.value if isinstance(merge, yaml.SequenceNode) else [merge]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                yield None
                continue
            for key_node, value_node in source.value:
                yield (key_node, value_node) if isinstance(key_node, yaml.ScalarNode) else None


def _line(node: yaml.Node) -> int:
    mark = node.start_mark
    return mark.line + 1 if mark is not None else 1


def _scalar(node: yaml.Node) -> object:
    kind = node.tag.removeprefix(_TAG)
    if not isinstance(node, yaml.ScalarNode) or kind not in ("null", "bool", "int", "float", "str", "merge"):
        tag = node.tag.replace(_TAG, "!!")
        raise _Unreadable(f"the tag `{tag}` is not allowed: a recipe holds only text, numbers, lists and mappings")
    text = node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    if kind in ("int", "float"):
        return _number(text)
    if not is_storable(text):
        raise _Unreadable(f"the text holds {_UNSTORABLE}")
    return str(text)


def _number(text: str) -> int | float:
    digits = text.replace("_", "").lower()
    text = shorten(text)
    unsigned = digits.lstrip("+-")
    if re.fullmatch(r"0[0-9]+", unsigned):
        stripped = unsigned.lstrip("0") or "0"
        raise _Unreadable(f"{text} is ambiguous: some read it as octal. Write {stripped}, or quote it if it is text")
    try:
        value = int(digits, 0) if re.fullmatch(r"[0-9]+|0[oxb][0-9a-f]+", unsigned) else float(_python_float(digits))
    except ValueError:
        raise _Unreadable(f"{text} is not a number. If it is text, quote it") from None
    if not math.isfinite(value):
        raise _Unreadable(f"{text} is not a finite number. If it is text, quote it")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _Unreadable(f"{text} is too large for a whole number (64 bits)")
    return value


def _python_float(digits: str) -> str:
    return digits.replace(".inf", "inf").replace(".nan", "nan")
