"""What an answer states that can be looked up: numbers with their units, prices, times, contacts, names, and rules.

Each is brought to one form, so that `9.30am` is `9:30`, `€3.50` is `3.5 eur`, and `two years` is `2 year`. English words for numbers and
units are known; digits, symbols, contacts and names are found in any language with capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tunesmith.evaluate.rouge import tokenise
from tunesmith.evaluate.stem import stem

__all__ = ["Statement", "content_stems", "is_content_word", "is_denied", "is_negated", "sentences_of", "statements_of"]


class Statement(NamedTuple):
    """Something that is true or not."""

    kind: str
    """`number`, `time`, `contact`, `name` or `rule`."""
    value: str
    """In its one form; of a rule the sentence."""
    unit: str = ""
    """Of a number: a currency, `%`, or the singular of a unit."""
    text: str = ""
    """As it was written."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")
_CONTACT = re.compile(
    r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+|https?://\S+|www\.\S+|(?<![\w.])\+?\d(?:[ ()/-]{0,2}\d){6,}(?!\w)"
)
_MERIDIEM = r"\s?(a\.?m\b\.?|p\.?m\b\.?)"
_HOUR = r"(?<![\d.,:])(\d{1,2})(?:[:.](\d{2}))?"
_RANGE = re.compile(rf"{_HOUR}\s*(?:-|–|to|until|and)\s*(\d{{1,2}})(?:[:.](\d{{2}}))?{_MERIDIEM}", re.IGNORECASE)
_TIME = re.compile(rf"{_HOUR}{_MERIDIEM}", re.IGNORECASE)
_CLOCK = re.compile(r"(?<![\d.,:])([01]?\d|2[0-3]):([0-5]\d)(?![\d:])")
_OCLOCK = re.compile(rf"{_HOUR}(?:\s*(?:-|–|bis|und)\s*(\d{{1,2}})(?:[:.](\d{{2}}))?)?\s*Uhr\b", re.IGNORECASE)
_MIDDAY = re.compile(r"\b(noon|midday|midnight)\b", re.IGNORECASE)
_SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_WORD_NUMBERS = (
    {word: str(number) for number, word in enumerate(_SMALL)}
    | {word: str(10 * tens) for tens, word in enumerate(_TENS, start=2)}
    | {f"{word}-{_SMALL[ones]}": str(10 * tens + ones) for tens, word in enumerate(_TENS, start=2) for ones in range(1, 10)}
    | {"hundred": "100"}
)
_CURRENCIES = dict(
    pair.split(":") for pair in _words("€:eur euro:eur eur:eur $:usd dollar:usd usd:usd £:gbp pound:gbp gbp:gbp ¥:jpy")
)
_CURRENCIES |= {"yen": "jpy", "jpy": "jpy", "chf": "chf", "cent": "cent"}
_CODES = "EUR|USD|GBP|CHF|JPY"
_UNITS = _words(
    "second minute hour day night week month year percent % piece item point star degree mile metre meter kilometre kilometer km cm mm"
    " m kg g gram litre liter person people page"
)
_SPELLED = rf"(?:{'|'.join(_TENS)})(?:[\s-](?:{'|'.join(_SMALL[1:10])}))?|{'|'.join(_SMALL)}|hundred"
_BORDER = r"(?:(?<![\w.,])|(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]))"
"""Where a number may begin: after no letter, or after one of a script that puts no space before it."""
_DEGREES = re.compile(r"(?<=\d)\s?°(?:\s?[CF]\b)?")
_NUMBER = re.compile(
    rf"(?P<sign>[€$£¥]|\b(?:{_CODES})\b)?\s?{_BORDER}(?P<value>\d[\d.,]*|\b(?:{_SPELLED})\b)(?P<after>\s?[€$£¥%])?"
    r"(?:[\s-]?(?:working|business|calendar|full)?[\s-]?(?P<unit>[^\W\d_]+|%))?",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<!\w)(?:[A-ZÀ-ÖØ-Þ][\w’'-]*)(?:\s+(?:of|the|de|von|van|la|le)?\s?[A-ZÀ-ÖØ-Þ][\w’'-]*)*")
_MANY_CAPITALS = 0.3
"""Share of capitals among the words inside a sentence from which they mark nouns, as in German, and no names."""
_RULE = re.compile(
    r"\b(?:can|cannot|can't|may|must|mustn't|should|allowed|accept\w*|refund\w*|return\w*|exchang\w*|free|guarantee\w*|warrant\w*|offer\w*"
    r"|requir\w*|never|always|deliver\w*|ship\w*|charge\w*|discount\w*|open|closed"
    r"|final|bring\w*|money\s+back|needed|whenever|any\s?time|half\s+(?:the\s+)?price|voucher\w*|deposit\w*|surcharge\w*)\b",
    re.IGNORECASE,
)
_LEAST_WORDS = 2
_NEGATION = re.compile(
    r"\b(?:isn|aren|don|doesn|won|can|couldn|wouldn|mustn|didn|wasn|weren|shouldn|hasn|haven|hadn|needn)['’]t\b"
    r"|\b(?:not|no|never|cannot|without|nor|neither|nothing|unable)\b",
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
            whole. A question is none.

    >>> [(found.kind, found.value, found.unit) for found in statements_of("Send it to 14 Weaver Lane within 30 days, by 9.30am.")]
    [('time', '9:30', ''), ('number', '14', ''), ('number', '30', 'day'), ('name', 'weaver lane', '')]
    """
    rest, found = sentence, []
    for match in _CONTACT.finditer(rest):
        found.append(Statement("contact", _contact(match[0]), text=match[0]))
    rest = _CONTACT.sub(_blank, rest)
    for pattern, read in ((_RANGE, _range), (_TIME, _time), (_OCLOCK, _oclock), (_CLOCK, _clock), (_MIDDAY, _midday)):
        for match in pattern.finditer(rest):
            found += read(match)
        rest = pattern.sub(_blank, rest)
    rest = _DEGREES.sub(" degrees", rest)
    found += _numbers(rest)
    found += _names(rest)
    if rules and all(one.kind == "name" for one in found) and _is_rule(sentence):
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


def _midday(match: re.Match[str]) -> list[Statement]:
    return [Statement("time", "0:00" if match[0].casefold() == "midnight" else "12:00", text=match[0])]


def _numbers(text: str) -> Iterator[Statement]:
    for match in _NUMBER.finditer(text):
        value, unit = _value(match["value"]), _unit(match["unit"] or "")
        sign = (match["sign"] or match["after"] or "").strip().casefold()
        unit = _CURRENCIES.get(sign, "%" if sign == "%" else unit)
        if not match["value"][0].isdigit() and not unit:
            continue  # `one of them` counts nothing
        yield Statement("number", value, unit, text=match[0].strip())


def _value(text: str) -> str:
    """A number in one form: no thousands separators, no needless zeros. The last of two kinds of separator is the decimal one."""
    spelled = "-".join(re.split(r"[\s-]", text.casefold()))
    if spelled in _WORD_NUMBERS:
        return _WORD_NUMBERS[spelled]
    text = text.rstrip(".,")
    last = max(text.rfind("."), text.rfind(","))
    tail = text[last + 1 :]
    is_decimal = last >= 0 and (len(tail) != 3 or ("." in text and "," in text) or text.startswith("0"))
    digits = re.sub(r"\D", "", text[:last] if is_decimal else text)
    whole = digits.lstrip("0") or "0"
    fraction = tail.rstrip("0") if is_decimal else ""
    return f"{whole}.{fraction}" if fraction else whole


def _unit(word: str) -> str:
    word = word.casefold()
    single = word if word in _UNITS or word in _CURRENCIES else word.removesuffix("s")
    if single in _CURRENCIES:
        return _CURRENCIES[single]
    return "%" if single in {"percent", "%"} else single if single in _UNITS else ""


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
        if text in {"I", "OK"} or _unit(text) or text.startswith(("I'", "I’")):
            continue
        yield Statement("name", " ".join(tokenise(text)), text=text)
