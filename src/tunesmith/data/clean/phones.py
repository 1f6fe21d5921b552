"""Telephone numbers in running text.

A number is one by its form (`+44 7700 900123`, `(212) 555-0123`, `06 12 34 56 78`), or by a word beside it ("call", "mobile"), since
a local number alone looks like many an order number. phonenumbers decides which international ones can be dialled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import phonenumbers

from tunesmith.data.clean.digits import near

__all__ = ["phones"]

_CANDIDATE = re.compile(
    r"(?<![\w$€£#=.+\-/])(?<!\d[,:])(?:\+ ?|\(\+?)?\d(?:[ \u00a0.\-/()]{0,2}\d){5,16}(?: ?(?:x|ext\.?|extension) ?\d{1,6})?"
    r"(?![\w%°€£$]|[.,:/]\d|-\d)"
)
_DATE_OR_YEARS = re.compile(
    r"(?:1[5-9]|20|21)\d\d[-./ ](?:1[5-9]|20|21)\d\d|(?:1[5-9]|20|21)\d\d([-./ ])[01]?\d\1[0-3]?\d(?:[ T]\d{1,2})?"
    r"|[0-3]?\d([-./ ])[0-3]?\d\2(?:1[89]|20|21)?\d\d(?:[ T]\d{1,2})?|[0-3]\d[01]\d(?:19|20)\d\d|(?:19|20)\d\d[01]\d[0-3]\d(?:\d{4,6})?"
)
_FIGURE = re.compile(r"\d+[.,]\d+|[1-9]\d{0,2}(?:[ .\u00a0]000)+|[1-9]\d{0,2}(?:\.\d{3}){2,}")
_NORTH_AMERICAN = re.compile(r"(?:\+?1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ])\d{3}[-. ]\d{4}")
_TRUNK = re.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ .\-/]{1,2}\d{2,8}){1,5}")
_WORD_BEFORE = re.compile(
    r"(?<![^\W_])(?:(?:tele|cell)?phones?|telefon|tel[eé]fono?|telefone|t[eé]l[eé]phone|tele?|mobile?n?|móvil|cell(?:ular)?|celular|"
    r"fax|call(?:ing)?|dial|sms|text(?:ed)?|whats\W?app|hotline|helpline|voicemail|landline|rufnummer|handynummer|contact number)"
    r"\b[^\n\d]{0,20}\n?\s*\(?\+?$",
    re.IGNORECASE,
)
# Beside these a number must also look like one: grouped, or ten digits long and right behind.
_WEAK_WORD_BEFORE = re.compile(
    r"\b(?:no|numbers?|message[sd]?|contact|desk|office|home|work|reach|registered|direct|us at|me (?:at|on)|him at|her at)"
    r"\b(?! (?:is )?at\b)([^\n\d]{0,12})\(?\+?$",
    re.IGNORECASE,
)
_STREET_AFTER = re.compile(
    r" (?:[^\W\d_][\w'-]* ){1,3}(?:st|str|street|rd|road|ave?|avenue|ln|lane|dr|drive|ct|court|blvd|way|pl|place|sq|square|hwy)\b",
    re.IGNORECASE,
)
_WORD_AFTER = re.compile(r"\s?[-(,]\s?(?:office|fax|mobile|cell|home|work|desk|phone|tel)\b", re.IGNORECASE)
# What else is numbered; the nearest word decides.
_OTHER_WORD = re.compile(
    r"\b(?:order|invoice|account|ticket|tracking|reference|ref|serial|model|case|item|sku|booking|confirmation|policy|customer|"
    r"member(?:ship)?|transaction|isbn|issn|doi|version|card|zip|postcode|postal|id|code|pin|claim|product|part|purchase|article|rfc|iban|"
    r"barcode|ean|upc|population|page|pp|vol|volume|license|licence|passport|box|po|psc|unit)s?\b[^\n]{0,28}$",
    re.IGNORECASE,
)
_FROM_MIN, _TO_MAX = 7, 15  # digits: ITU-T E.164 allows 15; below 7 a number is local to a town or an extension


def phones(text: str, places: Iterable[tuple[int, int]], *, regions: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """Find the spans of telephone numbers.

    Args:
        text: any text.
        places: where digits stand close together.
        regions: countries (ISO 3166, such as `GB`) whose national numbers are found without a word beside them.
    """
    for match in near(_CANDIDATE, text, places, before=3, after=16):
        value = match[0]
        digits = re.sub(r"\D", "", re.split(r"x|ext", value)[0])
        if _FROM_MIN <= len(digits) <= _TO_MAX and _is_phone(value, digits, text, match, regions):
            yield match.span()


def _is_phone(value: str, digits: str, text: str, match: re.Match[str], regions: Sequence[str]) -> bool:
    if _DATE_OR_YEARS.fullmatch(value) or _FIGURE.fullmatch(value):
        return False
    before = text[max(0, match.start() - 40) : match.start()]
    if "+" in value or (value != digits and re.match("00[1-9]", digits) and len(digits) > 9):
        return _can_be_dialled("+" + digits.lstrip("0")) or len(digits) > 9
    if _WORD_BEFORE.search(before) or _WORD_AFTER.match(text, match.end()):
        return True
    if _OTHER_WORD.search(before) or _STREET_AFTER.match(text, match.end()):
        return False
    number = re.split(r" ?(?:x|ext)", value)[0]
    weak = _WEAK_WORD_BEFORE.search(before)
    is_near = weak is not None and not any(sign.isalpha() for sign in weak[1])
    return bool(
        _NORTH_AMERICAN.fullmatch(number)
        or (_TRUNK.fullmatch(number) and len(digits) > 8)
        or (weak and number != digits)
        or (is_near and len(digits) == 10 and digits[0] != "0")
        or any(_is_valid(digits, region) for region in regions)
    )


def _can_be_dialled(number: str) -> bool:
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


def _is_valid(digits: str, region: str) -> bool:
    try:
        return phonenumbers.is_valid_number_for_region(phonenumbers.parse(digits, region), region)
    except phonenumbers.NumberParseException:
        return False
