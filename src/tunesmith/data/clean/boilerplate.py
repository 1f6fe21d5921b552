"""What stands around a text and is not of it: page headers and footers, cookie notices, navigation, signatures, quoted mails.

At the head and the foot of a text a line goes that stands in many documents, or that is one of the phrases every site has. Of a
mail, what it answers and what follows the signature mark go; of an answer, which may well be a letter, nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step, Whole, edited, texts_of
from tunesmith.data.clean_config import BoilerplateSettings
from tunesmith.records import Record, Role

__all__ = ["build", "without_mail"]

_PHRASE = re.compile(
    r"\W*(?:skip to (?:main )?content|(?:we|this (?:web)?site) uses? cookies\b.{0,300}|accept (?:all )?cookies|cookie (?:settings|policy)"
    r"|(?:all rights reserved|copyright|©|\(c\)) ?.{0,120}|.{0,80}all rights reserved\.?|(?:privacy policy|terms (?:of (?:use|service)"
    r"|and conditions)|contact us|about us|sitemap|log ?in|sign (?:in|up)|subscribe(?: to our newsletter)?|share this(?: article| page)?"
    r"|back to top|read more|related (?:articles|posts)|advertisement|menu|search|home)(?: ?[|·•›»/>] ?.{0,200})?)\W*",
    re.IGNORECASE,
)
_NAVIGATION = re.compile(r"\s*[\w&' -]{1,30}(?: ?[|·•›»>] ?[\w&' -]{1,30}){2,}\s*")
_SIGNATURE = re.compile(r"^-- ?\n.{0,1000}\Z", re.MULTILINE | re.DOTALL)
_QUOTE_HEAD = re.compile(
    r"^(?:On .{4,120}wrote:|Am .{4,120}schrieb.{0,80}:|Le .{4,120}a écrit ?:|El .{4,120}escribió:|-{2,} ?(?:Original Message|"
    r"Ursprüngliche Nachricht|Forwarded message) ?-{2,})[ \t]*$",
    re.MULTILINE,
)
_QUOTED = re.compile(r"(?:^>.*(?:\n|\Z))+", re.MULTILINE)
_MAX_LINES = 12  # at either end: what lies deeper is text


def build(settings: BoilerplateSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it reads every row before its first outcome."""
    limits = settings or BoilerplateSettings()

    def judge(rows: Sequence[Record]) -> Iterator[Outcome]:
        counts: Counter[str] = Counter()
        for record in rows:
            if record.text is not None:
                counts.update({line.strip() for line in _edges(record.text) if len(line.strip()) > 3})
        repeated = {line for line, count in counts.items() if count >= limits.min_documents}
        for record in rows:
            if record.text is not None:
                after = edited(record, [_inner(without_mail(record.text), repeated)])
                yield None if after is record else after
            else:
                turns = (*record.messages, *record.rejected)
                texts = [without_mail(turn.content) if turn.role is Role.USER else turn.content for turn in turns]
                yield None if texts == texts_of(record) else edited(record, texts)

    return Whole(judge)


def without_mail(text: str) -> str:
    """A mail without the one that it answers and without its signature; a text that is all quotation stays."""
    if "\n" not in text:
        return text
    head = _QUOTE_HEAD.search(text)
    shorter = text[: head.start()] if head and (">" in text[head.end() :] or head[0].startswith("-")) else text
    shorter = _SIGNATURE.sub("", shorter)
    if head and shorter is not text:
        shorter = _QUOTED.sub("", shorter)
    return shorter.rstrip() if shorter != text and shorter.strip() else text


def _edges(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if len(lines) <= 2 * _MAX_LINES else lines[:_MAX_LINES] + lines[-_MAX_LINES:]


def _inner(text: str, repeated: set[str]) -> str:
    """The text between its first and its last line of its own."""
    lines = text.split("\n")
    if len(lines) < 3:
        return text
    start, end = 0, len(lines)
    while start < end and _is_boilerplate(lines[start], repeated):
        start += 1
    while end > start and _is_boilerplate(lines[end - 1], repeated):
        end -= 1
    return text if (start, end) == (0, len(lines)) or start == end else "\n".join(lines[start:end])


def _is_boilerplate(line: str, repeated: set[str]) -> bool:
    line = line.strip()
    return not line or line in repeated or bool(_PHRASE.fullmatch(line) or _NAVIGATION.fullmatch(line))
