"""What an answer states that can be looked up: numbers with their units, prices, times, dates, contacts, names, and rules.

Each is brought to one form, so that `9.30am` is `9:30`, `€3.50` is `3.5 eur`, and `two years` is `2 year`. English, German and French
words for numbers, units, dates and rules are known; digits, symbols, contacts and names are found in any language with capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tunesmith.evaluate.dates import MONTH, days_in, weekdays_in
from tunesmith.evaluate.quantities import CURRENCY_SIGNS, SPELLED, hour_of, scaled, unit_of, value_of
from tunesmith.evaluate.rouge import tokenise
from tunesmith.evaluate.stem import stem

__all__ = ["Statement", "content_stems", "is_content_word", "is_denied", "is_negated", "sentences_of", "statements_of"]


class Statement(NamedTuple):
    """Something that is true or not."""

    kind: str
    """`number`, `time`, `date`, `weekday`, `contact`, `name` or `rule`."""
    value: str
    """In its one form; of a rule the sentence, of a date or a weekday as it was written."""
    unit: str = ""
    """Of a number: a currency, `%`, or the singular of a unit."""
    text: str = ""
    """As it was written."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SENTENCE = re.compile(
    rf"(?<=[.!?])(?<!\bFr\.)(?<!\bNo\.)(?<!\bNr\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bSt\.)(?<!\bca\.)(?:(?<!\d\.)|(?!\s+(?:(?:{MONTH})\b|[a-zà-ÿ])))\s+"
    r"|(?<=[。！？])\s*|\n+"
)
_MARKER = re.compile(r"^\s*(?:[-*•]\s+)?\d{1,2}[.)](?:\s+|$)")
"""Of a list: a number that counts its lines and states nothing."""
_CONTACT = re.compile(
    r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+|https?://\S+|www\.\S+|(?<![\w.])(?<!\d['’])\+?\d(?:[ ()/-]{0,2}\d){6,}(?!\w)"
)
_MERIDIEM = r"\s?(a\.?m\b\.?|p\.?m\b\.?)"
_HOUR = r"(?<![\d.,:])(\d{1,2})(?:[:.](\d{2}))?"
_RANGE = re.compile(rf"{_HOUR}\s*(?:-|–|to|until|and)\s*(\d{{1,2}})(?:[:.](\d{{2}}))?{_MERIDIEM}", re.IGNORECASE)
_TIME = re.compile(rf"{_HOUR}{_MERIDIEM}", re.IGNORECASE)
_CLOCK = re.compile(r"(?<![\d.,:])([01]?\d|2[0-3]):([0-5]\d)(?![\d:])")
_OCLOCK = re.compile(rf"{_HOUR}(?:\s*(?:-|–|bis|und)\s*(\d{{1,2}})(?:[:.](\d{{2}}))?)?\s*Uhr\b", re.IGNORECASE)
_HEURES = re.compile(
    r"(?<![\d.,:])(\d{1,2})\s?h(?:\s?([0-5]\d))\b|\b(?:à|de|dès|vers|entre|et)\s+(\d{1,2})\s?h\b(?!\s?[0-5]\d)", re.IGNORECASE
)
_HALF_PAST = re.compile(r"\b(half|quarter)\s+(past|to)\s+(\w+)", re.IGNORECASE)
_HOURS = re.compile(r"(?<![\d.,:])(\d{1,2})\s?[-–]\s?(\d{1,2})(?![\d.,:]*\d)(?!\s?[^\W\d_])")
"""Two numbers without a unit, which in a source may be hours: `Mon-Fri 9-18`."""
_MIDDAY = re.compile(r"\b(noon|midday|midnight)\b", re.IGNORECASE)
_BORDER = r"(?:(?<![\w.,])|(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]))"
"""Where a number may begin: after no letter, or after one of a script that puts no space before it."""
_DIGITS = r"\d{1,3}(?:['’ \u00a0\u202f]\d{3})+(?!\d)(?:[.,]\d+)?|\d[\d.,]*"
_NUMBER = re.compile(
    rf"(?P<sign>{CURRENCY_SIGNS})?\s?{_BORDER}(?P<value>{_DIGITS}|\b{SPELLED}\b)(?P<after>\s?[€$£¥%])?"
    r"(?:(?:\.[-–—])?[\s-]{0,2}(?:of\s+(?:a|an)\s+)?(?P<scale>millions?|billions?|thousand|Millionen|m(?=\b)|bn\b)?\s?(?P<after_scale>[€$£¥])?)"
    r"(?:[\s-]?(?:working|business|calendar|full|volle|ganze)?[\s-]?(?P<unit>per\s?cent\b|pour\s?cent\b|°(?:\s?[CF]\b)?|[^\W\d_]+|%))?",
    re.IGNORECASE,
)
_SCALES = {"m": 10**6, "bn": 10**9, "thousand": 1000, "millionen": 10**6}
_NAME = re.compile(r"(?<!\w)(?:[A-ZÀ-ÖØ-Þ][\w’'-]*)(?:\s+(?:of|the|de|von|van|la|le)?\s?[A-ZÀ-ÖØ-Þ][\w’'-]*)*")
_NO_NAME = re.compile(r"US(?=\$)|(?<=°)\s?[CF]\b")
_NO_NAMES = frozenset(_words("I OK Sie Ihr Ihre Ihnen Ihren Ihrem Ihrer Ihres Uhr"))
_MANY_CAPITALS = 0.3
"""Share of capitals among the words inside a sentence from which they mark nouns, as in German, and no names."""
_RULE = re.compile(
    r"\b(?:can|cannot|can't|may|must|mustn't|should|allowed|accept\w*|refund\w*|return\w*|exchang\w*|free|guarantee\w*|warrant\w*|offer\w*"
    r"|requir\w*|never|always|deliver\w*|ship\w*|charge\w*|discount\w*|open|closed|includ\w*|permitted|forbidden|prohibited"
    r"|final|bring\w*|money\s+back|needed|whenever|any\s?time|half\s+(?:the\s+)?price|voucher\w*|deposit\w*|surcharge\w*"
    r"|darf|dürfen|muss|müssen|kann|können|erlaubt|verboten|kostenlos|gratis|inbegriffen|geliefert|liefern|versenden|umtausch\w*|rückgabe"
    r"|garantie|rabatt|geöffnet|geschlossen|immer|niemals"
    r"|peut|peuvent|peux|pouvez|doit|doivent|devez|interdit\w*|autorisé\w*|permis\w*|admis\w*|gratuit\w*|rembours\w*|livr\w*|échang\w*"
    r"|ouvert\w*|fermé\w*|toujours|inclus\w*|compris\w*)\b",
    re.IGNORECASE,
)
_LEAST_WORDS = 2
_BOUND = re.compile(
    r"\b(?:under|over|above|below|least|most|up to|than|aged?|unter|über|bis|ab|mindestens|moins de|plus de)\s*$", re.IGNORECASE
)
"""What makes a number of any word for it: `under ten`."""
_NEAR = 20
_MOST_IDLE = 12
"""A number in words up to which, without a unit, it is a way of speaking."""
_NEGATION = re.compile(
    r"\b(?:isn|aren|don|doesn|won|can|couldn|wouldn|mustn|didn|wasn|weren|shouldn|hasn|haven|hadn|needn)['’]t\b"
    r"|\b(?:not|no|never|cannot|without|nor|neither|nothing|unable)\b"
    r"|\b(?:nicht|kein|keine|keinen|keiner|keinem|nie|niemals|ohne)\b|\b(?:pas|jamais|aucun|aucune|sans)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,;:]\s|\b(?:but|and|because|so)\b")
_LIMIT = re.compile(
    r"\b(?:after\w*|later|longer|more|over|older|beyond|past|than|unless|without|only|just|until|before|under|below|less|if)\b",
    re.IGNORECASE,
)
_EMPTY = frozenset(
    _words(
        "a about after all also am an and any are as at be because been before but by can could did do does for from had has have he her"
        " here him his how i if in into is it its just let may me might more most must my no nor not of on one only or other our out over"
        " she should so some such sure than thank thanks that the their them then there these they this those to too under until up us"
        " very was we were what when where which while who why will with would yes you your yours hello hi dear sorry please afraid happy"
        " glad welcome course come another"
        " don doesn isn aren won couldn wouldn mustn didn wasn weren shouldn hasn haven hadn needn t s re ve ll d"
        " der das und oder ist sind im am den dem des ein eine einen nicht kein keine wir sie es für auf zu auch ja nein bitte"
        " le les la du est sont dans une un et ou nous vous il elle oui non ne pas pour sur avec"
    )
)


def sentences_of(text: str) -> list[str]:
    """Cut a text at ends of sentences and lines."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def is_content_word(word: str) -> bool:
    """Whether a lower-case word carries meaning."""
    return word not in _EMPTY and not word.isdigit()


def content_stems(text: str) -> frozenset[str]:
    """Stems of the words that carry meaning."""
    return frozenset(stem(word) for word in tokenise(text) if is_content_word(word))


def is_negated(text: str) -> bool:
    """Whether a sentence says no."""
    return _NEGATION.search(text) is not None


def is_denied(sentence: str, *, text: str) -> bool:
    """Whether the clause of a sentence in which a text stands says no, and not merely where a limit lies (`not after 30 days`)."""
    clauses = [clause for clause in _CLAUSE.split(sentence) if text in clause]
    return any(is_negated(clause) and _LIMIT.search(clause) is None for clause in clauses)


def statements_of(sentence: str, *, rules: bool = True) -> list[Statement]:
    """What one sentence states.

    Args:
        sentence: one sentence.
        rules: whether a sentence that allows, forbids or promises something, and states nothing else but names, is a statement as a
            whole. A question is none. Without them the sentence is taken for a source, and read with more good will: `two coffees` is a
            number, and `9-18` may be hours.

    >>> [(found.kind, found.value, found.unit) for found in statements_of("Send it to 14 Weaver Lane within 30 days, by 9.30am.")]
    [('time', '9:30', ''), ('number', '14', ''), ('number', '30', 'day'), ('name', 'weaver lane', '')]
    """
    rest, found = sentence, []
    rest = _MARKER.sub(_blank, rest)
    for match, _ in days_in(rest):
        found.append(Statement("date", match[0], text=match[0]))
        rest = rest[: match.start()] + _blank(match) + rest[match.end() :]
    for match in _CONTACT.finditer(rest):
        found.append(Statement("contact", _contact(match[0]), text=match[0]))
    rest = _CONTACT.sub(_blank, rest)
    for pattern, read in (
        (_RANGE, _range),
        (_TIME, _time),
        (_OCLOCK, _oclock),
        (_HEURES, _heures),
        (_HALF_PAST, _half_past),
        (_CLOCK, _clock),
        (_MIDDAY, _midday),
    ):
        for match in pattern.finditer(rest):
            found += read(match)
        rest = pattern.sub(_blank, rest)
    for match, _ in weekdays_in(rest):
        found.append(Statement("weekday", match[0], text=match[0]))
        rest = rest[: match.start()] + _blank(match) + rest[match.end() :]
    if not rules:
        found += _hours(rest)
    found += _numbers(rest, rules=rules)
    found += _names(_NO_NAME.sub(_blank, rest))
    if rules and all(one.kind in {"name", "weekday"} for one in found) and _is_rule(sentence):
        found.append(Statement("rule", " ".join(sentence.split()), text=sentence))
    return found


def _is_rule(sentence: str) -> bool:
    is_question = sentence.rstrip("\"'”’)").endswith(("?", "？"))
    return not is_question and _RULE.search(sentence) is not None and len(content_stems(sentence)) >= _LEAST_WORDS


def _blank(match: re.Match[str]) -> str:
    return "|" * len(match[0])  # no blank: names on both sides are two


def _contact(text: str) -> str:
    digits = re.sub(r"\D", "", text)
    return digits if len(digits) >= 7 and "@" not in text and "." not in text else text.casefold().rstrip(".,;:!?)/")


def _hour(hour: str, minute: str | None, half: str | None) -> str:
    number = int(hour)
    if half and half.casefold().startswith("p") and number < 12:
        number += 12
    if half and half.casefold().startswith("a") and number == 12:
        number = 0
    return f"{number}:{minute or '00'}"


def _range(match: re.Match[str]) -> list[Statement]:
    first, first_minute, last, last_minute, half = match.groups()
    # Of `9 to 5 pm` the nine is of the morning: a day does not run backwards.
    early = "am" if half.casefold().startswith("p") and int(first) % 12 > int(last) % 12 else half
    return [
        Statement("time", _hour(first, first_minute, early), text=match[0]),
        Statement("time", _hour(last, last_minute, half), text=match[0]),
    ]


def _time(match: re.Match[str]) -> list[Statement]:
    return [Statement("time", _hour(*match.groups()), text=match[0])]


def _clock(match: re.Match[str]) -> list[Statement]:
    return [Statement("time", f"{int(match[1])}:{match[2]}", text=match[0])]


def _oclock(match: re.Match[str]) -> list[Statement]:
    first, first_minute, last, last_minute = match.groups()
    hours = [(first, first_minute), *([(last, last_minute)] if last else [])]
    return [Statement("time", _hour(hour, minute, None), text=match[0]) for hour, minute in hours]


def _heures(match: re.Match[str]) -> list[Statement]:
    return [Statement("time", _hour(match[1] or match[3], match[2], None), text=match[0])]


def _half_past(match: re.Match[str]) -> list[Statement]:
    if (hour := hour_of(match[3])) is None:
        return []
    minute = 30 if match[1].casefold() == "half" else 15
    if match[2].casefold() == "to":
        hour, minute = (hour + 10) % 12 + 1, 60 - minute
    return [Statement("time", f"{hour}:{minute}", text=match[0])]


def _hours(text: str) -> Iterator[Statement]:
    for match in _HOURS.finditer(text):
        if int(match[1]) < int(match[2]) <= 24:
            yield from (Statement("time", f"{int(hour)}:00", text=match[0]) for hour in match.groups())


def _midday(match: re.Match[str]) -> list[Statement]:
    return [Statement("time", "0:00" if match[0].casefold() == "midnight" else "12:00", text=match[0])]


def _numbers(text: str, *, rules: bool) -> Iterator[Statement]:
    for match in _NUMBER.finditer(text):
        value, unit = value_of(match["value"]), unit_of(" ".join((match["unit"] or "").split()))
        unit = "%" if match["unit"] and match["unit"].casefold().replace(" ", "") in {"percent", "pourcent"} else unit
        sign = (match["sign"] or match["after"] or match["after_scale"] or "").strip()
        unit = unit_of(sign) or unit
        if (scale := (match["scale"] or "").casefold()) and (scale != "m" or sign):
            value = scaled(value, _SCALES.get(scale, 10**9 if scale.startswith("b") else 10**6))
        elif scale:
            unit = unit or unit_of(scale)
        is_idle = not unit and (value == "1" or (rules and float(value) <= _MOST_IDLE))
        if not match["value"][0].isdigit() and is_idle and (value == "1" or not _BOUND.search(text[: match.start()][-_NEAR:])):
            continue  # `one of them` counts nothing
        yield Statement("number", value, unit, text=match[0].strip())


def _names(sentence: str) -> Iterator[Statement]:
    words = sentence.split()[1:]
    capitals = sum(word[:1].isupper() for word in words)
    if words and capitals > max(_MANY_CAPITALS * len(words), 2):
        return
    for match in _NAME.finditer(sentence):
        text = match[0]
        if not sentence[: match.start()].strip(" \"'“„(*_-•"):  # a sentence begins with a capital anyway
            _, _, text = text.partition(" ")
            if not text or not text[0].isupper():
                continue
        if text in _NO_NAMES or unit_of(text) or text.startswith(("I'", "I’")):
            continue
        yield Statement("name", " ".join(tokenise(text)), text=text)
