r"""A JSON line with slips of spelling that leave no doubt of what was meant, and what was mended in it.

Mended are a comma before a closing bracket or behind the line, single quotes, keys that are bare names, `True`, `False` and `None`,
Python's escapes `\xNN` and `\UNNNNNNNN`, remarks in `/* */`, and behind the value `//` or `#`, and brackets not closed at the end of the
line. Nothing else is: a text is taken as it stands between its quotes, so a quote too many, a comma too few or a string without end give
no value. Brackets are closed only behind a string, a bracket or a word, for behind a comma, a colon or a number something may be lost.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

__all__ = ["Slip", "parse"]

_BLANK = re.compile(r"[ \t\r\n]*")
_REMARK = re.compile(r"/\*.*?\*/", re.DOTALL)
_LAST_REMARK = re.compile(r"(?://|#).*", re.DOTALL)
_STRINGS = {'"': re.compile(r'"(?:[^"\\]|\\.)*+"'), "'": re.compile(r"'(?:[^'\\]|\\.)*+'")}
_PIECE = re.compile(r'\\x[0-9a-fA-F]{2}|\\U[0-9a-fA-F]{8}|\\.|"', re.DOTALL)
_NAME = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.+-])", re.ASCII)
_WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_CLOSING = {"{": "}", "[": "]"}


class Slip(NamedTuple):
    """One mend: the column it is made at, from 1, what stands there and what should; None where nothing should."""

    column: int
    before: str
    after: str | None


def parse(text: str) -> tuple[Any, list[Slip]]:
    """A line's value, and every slip in it. ValueError: it has none even so; RecursionError: it is nested too deeply."""
    value = (reading := _Reading(text)).value()
    if reading.next() == ",":
        reading.pass_over(",", None)
        reading.next()
    if remark := _LAST_REMARK.match(text, reading.at):
        reading.pass_over(remark[0], None)
    if reading.at < len(text):
        raise ValueError(f"more behind the value at column {reading.at + 1}")
    return value, reading.slips


class _Reading:
    """A text, and how far it is read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._is_whole = False  # whether what was read last cannot have been cut short
        self.at = 0
        self.slips: list[Slip] = []

    def pass_over(self, before: str, after: str | None) -> None:
        """Go on behind what stands here, and note what should."""
        if before != after:
            self.slips.append(Slip(self.at + 1, before, after))
        self.at += len(before)

    def next(self) -> str:
        """Go on to the next sign that is neither blank nor in a remark; empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self.at)
            self.at = blank.end() if blank else self.at
            if (remark := _REMARK.match(self._text, self.at)) is None:
                return self._text[self.at : self.at + 1]
            self.pass_over(remark[0], None)

    def value(self) -> Any:
        sign = self.next()
        if sign in _CLOSING:
            return self._held(sign)
        if sign in _STRINGS:
            return self._string(sign)
        found = _NUMBER.match(self._text, self.at) or _NAME.match(self._text, self.at)
        if found is None or (found.re is _NAME and found[0] not in _WORDS):
            raise ValueError(f"no value at column {self.at + 1}")
        self._is_whole = found.re is _NAME
        written = _WORDS.get(found[0], found[0])
        self.pass_over(found[0], written)
        return json.loads(written)

    def _string(self, quote: str) -> str:
        found = _STRINGS[quote].match(self._text, self.at)
        if found is None:
            raise ValueError(f"the string at column {self.at + 1} has no end")
        known = "'\"\\bfnrtu" + ("/" if quote == '"' else "")  # in single quotes Python and JavaScript differ about `\/`
        written = f'"{_PIECE.sub(lambda piece: _as_json(piece[0], known=known), found[0][1:-1])}"'
        value: str = json.loads(written, strict=False)  # a tab is kept as it stands
        self.pass_over(found[0], written)
        self._is_whole = True
        return value

    def _held(self, opening: str) -> dict[str, Any] | list[Any]:
        """An object or a list."""
        pairs: dict[str, Any] = {}
        items: list[Any] = []
        comma = -1
        self.at += 1
        self._is_whole = False
        while (sign := self.next()) not in {_CLOSING[opening], ""}:
            if comma < 0 and (pairs or items):
                raise ValueError(f"no comma at column {self.at + 1}")
            if opening == "[":
                items.append(self.value())
            else:
                key = self._key(sign)
                value = self.value()
                if key in pairs and repr(pairs[key]) != repr(value):
                    raise ValueError(f"the key `{key}` stands twice with two values")
                pairs[key] = value
            comma = self.at if self.next() == "," else -1
            if comma >= 0:
                self.at += 1
                self._is_whole = False
        if not sign and not self._is_whole:
            raise ValueError("the line ends inside a value")
        if sign and comma >= 0:
            self.slips.append(Slip(comma + 1, ",", None))
        self.pass_over(sign, _CLOSING[opening])
        self._is_whole = True
        return items if opening == "[" else pairs

    def _key(self, sign: str) -> str:
        if sign in _STRINGS:
            key = self._string(sign)
        elif (name := _NAME.match(self._text, self.at)) and name[0] not in _WORDS:
            self.pass_over(key := name[0], json.dumps(name[0], ensure_ascii=False))
        else:
            raise ValueError(f"no key at column {self.at + 1}")
        if self.next() != ":":
            raise ValueError(f"no colon at column {self.at + 1}")
        self.at += 1
        self._is_whole = False
        return key


def _as_json(piece: str, *, known: str) -> str:
    """An escape or a bare quote of a string, as JSON has it."""
    if piece[:2] in {"\\x", "\\U"} and len(piece) > 2:
        return json.dumps(chr(int(piece[2:], 16)))[1:-1]
    if piece[0] == "\\" and piece[1] not in known:
        raise ValueError(f"`{piece}` means no one thing")
    return {'"': '\\"', "\\'": "'"}.get(piece, piece)
