"""Rows in other languages than the wanted ones are dropped; a conversation is judged as a whole.

py3langid judges. A text too short to be sure of, or a judgement that is not sure, is `unknown` and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tunesmith.data.clean.step import Noted, Outcome, Step, each, texts_of
from tunesmith.data.clean_config import LanguageSettings
from tunesmith.records import Dropped, Record

__all__ = ["build", "language_in"]

_MIN_LETTERS = 24
"""A handful of words. Of texts of at most three words half are judged wrongly."""
_MAX_CHARACTERS = 2_000
"""More of a text changes no judgement."""
_MIN_CONFIDENCE = 0.9
_NO_WORDS = re.compile(r"```.*?(?:```|\Z)|https?://\S+|[\d\W_]+", re.DOTALL)


def build(settings: LanguageSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step. Without settings it only counts languages."""
    wanted = frozenset(settings.keep if settings else ())
    classify = _classifier()

    def judge(record: Record) -> Outcome:
        language = _language(record, classify)
        if not wanted or language in wanted or language == "unknown":
            return Noted(record, (language,))
        return Dropped(
            source=record.source, reason="language", detail=f"the language is {language}, not {' or '.join(sorted(wanted))}"
        )

    return each(judge)


def language_in(record: Record) -> str:
    """The language of a record (ISO 639-1); `unknown` where it is too short to be sure of."""
    return _language(record, _classifier())


def _language(record: Record, classify: Callable[[str], tuple[str, float]]) -> str:
    words = ""
    for text in texts_of(record):
        words = f"{words} {_NO_WORDS.sub(' ', text[:_MAX_CHARACTERS])}"
        if len(words) > _MAX_CHARACTERS:
            break
    # One sign of Chinese or Korean says as much as several letters.
    num_letters = sum(1 if sign < "\u2e80" else 3 for sign in words if not sign.isspace())
    if num_letters < _MIN_LETTERS:
        return "unknown"
    language, confidence = classify(words)
    return language if confidence >= _MIN_CONFIDENCE else "unknown"


@cache
def _classifier() -> Callable[[str], tuple[str, float]]:
    from py3langid import langid

    # An own one: the library's `classify` gives sums of logarithms, of which no share of certainty can be said.
    model = Path(langid.__file__).parent / langid.MODEL_FILE
    classify: Callable[[str], tuple[str, float]] = langid.LanguageIdentifier.from_modelpath(model, norm_probs=True).classify
    return classify
