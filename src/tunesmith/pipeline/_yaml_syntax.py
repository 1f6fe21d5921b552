"""PyYAML's complaints about broken text, in words that say what to do."""

from __future__ import annotations

import re

import yaml

from tunesmith.errors import Problem

__all__ = ["syntax_problem"]

_AT_PROBLEM, _AT_CONTEXT = "problem", "context"

_COLON = "a colon where none can stand: the line is indented too deep, or text that holds `: ` is not quoted"

# A pattern over "context; problem", where the mistake really stands, and the advice. The first that fits is used.
# The mark of the context is where the unclosed thing began.
_ADVICE = (
    (r"cannot start any token.*'\\t'|'\\t' that cannot start", _AT_PROBLEM, "a tab is used to indent. YAML indents with spaces"),
    (
        r"scanning an alias|undefined alias",
        _AT_PROBLEM,
        "text that begins with `*` must be quoted (YAML reads it as an alias)",
    ),
    (
        r"scanning an anchor|duplicate anchor",
        _AT_PROBLEM,
        "text that begins with `&` must be quoted (YAML reads it as an anchor), and an anchor's name is used once",
    ),
    (r"character '(?P<character>[^']+)' that cannot start", _AT_PROBLEM, "text that begins with `{character}` must be quoted"),
    (r"mapping values are not allowed", _AT_PROBLEM, _COLON),
    (r"could not find expected ':'", _AT_CONTEXT, "a key without its colon. Write `key: value`"),
    (r"unknown escape character|escape sequence", _AT_PROBLEM, "a backslash in double quotes. Use single quotes"),
    (r"scanning a quoted scalar", _AT_CONTEXT, "a quote is opened and not closed"),
    (r"flow (sequence|mapping)|expected ',' or", _AT_CONTEXT, "a `[` or `{{` is opened and not closed, or a comma is missing"),
    (
        r"expected <block end>|block (mapping|collection|sequence)|did not find expected",
        _AT_PROBLEM,
        "the indentation does not match the lines above, or text goes on after a closing quote",
    ),
    (r"single document", _AT_PROBLEM, "a second document begins (`---`). A recipe is one document"),
    (r"tag", _AT_PROBLEM, "text that begins with `!` must be quoted (YAML reads it as a tag)"),
)


def syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    """Say what is wrong with a text that is not YAML, and on which line."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        # PyYAML types `character` as bytes, and gives a code point for text.
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return Problem(line, "YAML", f"the control character U+{code:04X} is not allowed")
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(None, "YAML", f"not valid YAML: {error}")
    said = f"{error.context or ''}; {error.problem or ''}"
    for pattern, where, advice in _ADVICE:
        found = re.search(pattern, said)
        if found is None:
            continue
        mark = error.context_mark if where == _AT_CONTEXT and error.context_mark else error.problem_mark
        return Problem(_line(mark, text), "YAML", advice.format(**found.groupdict()))
    return Problem(_line(error.problem_mark, text), "YAML", f"not valid YAML: {error.problem}")


def _line(mark: yaml.Mark | None, text: str) -> int | None:
    """The mark's line, held within the text: PyYAML points one line below it when the end comes too early."""
    if mark is None:
        return None
    return min(mark.line + 1, max(1, len(text.rstrip().splitlines())))
