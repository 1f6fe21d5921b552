"""Placeholders such as `[EMAIL_1]`, numbered in the order in which values appear in a conversation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tunesmith.data.clean.find_pii import Span
from tunesmith.data.clean.step import Noted, Outcome, edited, texts_of
from tunesmith.records import Dropped, Record

__all__ = ["Placeholders", "scrub"]

_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_]*)_(\d{1,6})\]")


class Placeholders:
    """The placeholders of one conversation.

    Args:
        texts: the whole conversation; placeholders that stand in it already keep their numbers.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()
        for text in texts:
            for kind, number in _PLACEHOLDER.findall(text) if "[" in text else ():
                self._last[kind] = max(self._last[kind], int(number))

    def put(self, text: str, spans: Sequence[Span], *, same: Callable[[str, str], str]) -> str:
        """The text with each span replaced.

        Args:
            text: one of the conversation's texts.
            spans: in order, without overlaps.
            same: what two spellings of one value have in common, given the kind and the value.
        """
        parts = []
        at = 0
        for start, end, kind in spans:
            key = kind, same(kind, text[start:end])
            if key not in self._numbers:
                self._last[kind] += 1
                self._numbers[key] = self._last[kind]
            parts += [text[at:start], f"[{kind}_{self._numbers[key]}]"]
            at = end
        return "".join((*parts, text[at:]))


def scrub(record: Record, *, find: Callable[[str], Sequence[Span]], same: Callable[[str, str], str]) -> Outcome:
    """Put placeholders in the place of everything found in a record, until nothing more is found.

    Args:
        record: any.
        find: gives the spans of a text, in order, without overlaps.
        same: as for `Placeholders.put`.
    """
    texts = texts_of(record)
    spans = [find(text) for text in texts]
    if not any(spans):
        return record
    placeholders = Placeholders(texts)
    kinds: list[str] = []
    while any(spans):
        kinds += (span.kind.lower() for found in spans for span in found)
        texts = [placeholders.put(text, found, same=same) for text, found in zip(texts, spans, strict=True)]
        # What stood beside a value may only now be seen to be one itself.
        spans = [find(text) if found else [] for text, found in zip(texts, spans, strict=True)]
    scrubbed = edited(record, texts)
    return scrubbed if isinstance(scrubbed, Dropped) else Noted(scrubbed, tuple(kinds))
