"""A JSON line with slips of spelling that leave no doubt of what was meant, and what was mended in it.

Mended are a comma before a closing bracket, strings and keys in single quotes, keys that are bare names, `True`, `False` and `None`,
`/* */` between values and `//` or `#` behind the last, and brackets that are not closed at the end of the line. Nothing else is: a text
is taken as it stands between its quotes, so a quote too many, a comma too few or a string without end give no value. Brackets are
closed only behind a string, a bracket or a word, for behind a comma, a colon or a number something may be lost.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

__all__ = ["Slip", "parse"]

_BLANK = re.compile(r"[ \t\r\n]*")
_REMARK = re.compile(r"/\*.*?\*/", re.DOTALL)
_LAST_REMARK = re.compile(r"(?://|#).*", re.DOTALL)
_DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*+"')
_SINGLE = re.compile(r"'(?:[^'\\]|\\.)*+'")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NAME = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.+-])", re.ASCII)
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_CLOSING = {"{": "}", "[": "]"}


class Slip(NamedTuple):
    """One mend: the column it is made at, from 1, what stands there and what should; None where nothing should."""

    column: int
    before: str
    after: str | None


def parse(text: str) -> tuple[Any, list[Slip]]:
    """Read a line.

    Returns:
        Its value, and every slip in it, in order; none in sound JSON.

    Raises:
        ValueError: it is no value even so, or a key stands twice with two values.
        RecursionError: it is nested too deeply.
    """
    reading = _Reading(text)
    value = reading.value()
    reading.pass_blanks()
    if remark := _LAST_REMARK.match(text, reading.at):
        reading.slip(remark[0], None)
    if reading.at < len(text):
        raise ValueError(f"more behind the value at column {reading.at + 1}")
    return value, reading.slips


class _Reading:
    """A text and how far it is read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0
        self._may_close = False
        """Whether what was read last is surely whole."""
        self.slips: list[Slip] = []

    def slip(self, before: str, after: str | None) -> None:
        """Pass over a slip."""
        self.slips.append(Slip(self.at + 1, before, after))
        self.at += len(before)

    def pass_blanks(self) -> None:
        """Go on to what is neither blank nor remark."""
        while True:
            blank = _BLANK.match(self._text, self.at)
            self.at = blank.end() if blank else self.at
            remark = _REMARK.match(self._text, self.at)
            if remark is None:
                return
            self.slip(remark[0], None)

    def value(self) -> Any:
        self.pass_blanks()
        sign = self._text[self.at : self.at + 1]
        if sign and sign in "{[":
            return self._held(sign)
        if sign and sign in "\"'":
            return self._string(sign)
        if word := _NAME.match(self._text, self.at):
            if word[0] not in _WORDS:
                raise ValueError(f"`{word[0]}` at column {self.at + 1} is no value")
            self._pass(word[0], json.dumps(_WORDS[word[0]]))
            return _WORDS[word[0]]
        if number := _NUMBER.match(self._text, self.at):
            self.at = number.end()
            self._may_close = False
            return json.loads(number[0])
        raise ValueError(f"no value at column {self.at + 1}")

    def _pass(self, before: str, after: str) -> None:
        self._may_close = True
        if before == after:
            self.at += len(before)
        else:
            self.slip(before, after)

    def _string(self, quote: str) -> str:
        found = (_DOUBLE if quote == '"' else _SINGLE).match(self._text, self.at)
        if found is None:
            raise ValueError(f"the string at column {self.at + 1} has no end")
        written = found[0] if quote == '"' else _in_double_quotes(found[0])
        value = json.loads(written, strict=False)  # a tab or another control character is kept as it stands
        assert isinstance(value, str)
        self._pass(found[0], written)
        return value

    def _held(self, opening: str) -> dict[str, Any] | list[Any]:
        """An object or a list."""
        pairs: dict[str, Any] = {}
        items: list[Any] = []
        closing = _CLOSING[opening]
        self.at += 1
        comma: int | None = None
        self._may_close = False
        while not self._closes(closing, comma=comma):
            if (pairs or items) and comma is None:
                raise ValueError(f"no comma at column {self.at + 1}")
            if opening == "[":
                items.append(self.value())
            else:
                key, value = self._key(), self.value()
                if key in pairs and repr(pairs[key]) != repr(value):
                    raise ValueError(f"the key `{key}` stands twice")
                pairs[key] = value
            self.pass_blanks()
            comma = self.at if self._text[self.at : self.at + 1] == "," else None
            if comma is not None:
                self.at += 1
                self._may_close = False
        self._may_close = True
        return items if opening == "[" else pairs

    def _closes(self, closing: str, *, comma: int | None) -> bool:
        self.pass_blanks()
        if self.at >= len(self._text):
            if not self._may_close:
                raise ValueError("the line ends inside a value")
            self.slip("", closing)
            return True
        if self._text[self.at] != closing:
            return False
        if comma is not None:
            self.slips.append(Slip(comma + 1, ",", None))
        self.at += 1
        return True

    def _key(self) -> str:
        sign = self._text[self.at]
        if sign in "\"'":
            key = self._string(sign)
        else:
            name = _NAME.match(self._text, self.at)
            if name is None or name[0] in _WORDS:
                raise ValueError(f"no key at column {self.at + 1}")
            key = name[0]
            self.slip(key, json.dumps(key))
        self.pass_blanks()
        if self._text[self.at : self.at + 1] != ":":
            raise ValueError(f"no colon at column {self.at + 1}")
        self.at += 1
        self._may_close = False
        return key


def _in_double_quotes(written: str) -> str:
    """A string in single quotes as JSON has it. Escapes that JSON lacks mean different things in different languages."""

    def escaped(match: re.Match[str]) -> str:
        if match[1] not in "'\"\\bfnrtu":
            raise ValueError(f"\\{match[1]} means no one thing in single quotes")
        return "'" if match[1] == "'" else match[0]

    pieces = re.split(r"(\\.)", written[1:-1], flags=re.DOTALL)
    return (
        '"' + "".join(_ESCAPE.sub(escaped, piece) if i % 2 else piece.replace('"', '\\"') for i, piece in enumerate(pieces)) + '"'
    )
