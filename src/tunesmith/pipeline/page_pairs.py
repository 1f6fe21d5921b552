"""Two answers to one question side by side, with the words marked that only one of them has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from tunesmith.pipeline.page_parts import Answer, Pair, Pairs
from tunesmith.pipeline.page_text import shown

__all__ = ["marked", "pairs"]

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"(?:[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s])\s*|\s+")
"""A word, a sign, or one letter of a script that puts no blanks between words; with the blanks after it."""
_MOST_CHARACTERS = 1200
"""Of a text that is shown; comparing takes time that grows with the square of its words."""


def pairs(pairs: Pairs) -> str:
    """Pairs of answers under one heading."""
    return f"""<details open><summary>{shown(pairs.caption)}</summary>
{"".join(map(_pair, pairs.pairs))}</details>"""


def marked(left: str, right: str) -> tuple[str, str]:
    """Both texts as HTML: `del` around what only the left one says, `ins` around what only the right one says."""
    said, instead = _WORD.findall(left), _WORD.findall(right)
    matcher = SequenceMatcher(None, [word.strip() for word in said], [word.strip() for word in instead], autojunk=False)
    steps = matcher.get_opcodes()
    return (
        "".join(_around("del", said[a:b], differs=kind != "equal") for kind, a, b, _, _ in steps),
        "".join(_around("ins", instead[c:d], differs=kind != "equal") for kind, _, _, c, d in steps),
    )


def _around(tag: str, words: Sequence[str], *, differs: bool) -> str:
    text = "".join(words)
    core = text.rstrip()
    return f"<{tag}>{shown(core)}</{tag}>{shown(text[len(core) :])}" if differs and core else shown(text)


def _pair(pair: Pair) -> str:
    left, right = marked(_cut(pair.left.text), _cut(pair.right.text))
    columns = "".join(_columns(pair, left=left, right=right))
    return (
        f'<article><p class="where"><span>{shown(pair.remark)}</span></p>\n'
        f'<pre class="asked" dir="auto">{shown(_cut(pair.question))}</pre>\n<div class="beside">{columns}</div></article>\n'
    )


def _columns(pair: Pair, *, left: str, right: str) -> Iterator[str]:
    reference = Answer("reference", pair.reference)
    for one, text in ((reference, shown(_cut(pair.reference))), (pair.left, left), (pair.right, right)):
        said = f'<pre dir="auto">{text}</pre>' if one.text.strip() else '<p class="legend">(nothing)</p>'
        yield f'<div><p class="where"><b dir="auto">{shown(one.name)}</b></p>{said}</div>'


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
