"""Personal data that has a pattern: where in a text it stands, and of what kind it is.

E-mail addresses, telephone numbers, payment cards (Luhn), IBANs (mod 97), IP and MAC addresses, national numbers with their check
digits, and the numbers of passports and driving licences where the text names them. Names, places, ages and street addresses have
no pattern; `names.py` looks for those with a model.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from tunesmith.data.clean.digits import near, places_of_digits
from tunesmith.data.clean.national_ids import NATIONAL_IDS, luhn, mod97
from tunesmith.data.clean.phones import phones

__all__ = ["Span", "find_pii"]


class Span(NamedTuple):
    """A piece of a text. `kind` is the placeholder's name, such as `EMAIL`."""

    start: int
    end: int
    kind: str


class Look(NamedTuple):
    """A text and where its digits stand close together: the finders of numbers look nowhere else."""

    text: str
    places: Sequence[tuple[int, int]]
    regions: Sequence[str]


Finder = Callable[[Look], Iterator[Span]]

_LOCAL = re.compile(r"[\w.+%'\-]{1,64}\Z")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+([^\W\d_]{2,24})(?![\w@])")
_SPELT_EMAIL = re.compile(
    r"[\w.+-]{1,64} ?[\[({] ?at ?[\])}] ?(?:[\w-]+ ?(?:\.|[\[({] ?dot ?[\])}]) ?)+[a-z]{2,24}\b", re.IGNORECASE
)
_SPELT_AT = re.compile(r"[\[({] ?at ?[\])}]", re.IGNORECASE)
_NOT_A_DOMAIN = frozenset(
    {"png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "html", "json", "py", "js", "ts", "tgz", "zip"}
)
_CARD = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){11,18}(?![\w]|[.-]\d)")
_CARD_WORD = re.compile(r"card|\bcc\b|visa|amex|maestro|credit|debit|karte|carte|tarjeta|carta", re.IGNORECASE)
_OTHER_WORD = re.compile(r"order|track|invoice|serial|isbn|imei|barcode|ticket|\bref", re.IGNORECASE)
_CARD_FORM = re.compile(
    r"4\d{15}|4\d{18}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|(?:2131|1800)\d{11}|62\d{14,17}|(?:5[06-8]|6\d)\d{14,17}"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]{2}")
_COUNTRIES_BY_IBAN_LENGTH = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS = {country: length for length, names in _COUNTRIES_BY_IBAN_LENGTH.items() for country in names.split()}
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:]|\.\d)")
_DOTS = re.compile(r"\.\d{1,3}\.\d")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:|-[0-9A-Fa-f]{2}-")
_MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
_NUMBERED_WORD = re.compile(
    r"(?:version|\bv|release|build|section|chapter|§|figure|table|clause|rfc|oid|firmware|driver)[\s.:]*\Z", re.IGNORECASE
)
_ADDRESS_WORD = re.compile(r"\bip|address|host|server|ping|ssh|client|from|network|subnet|gateway|dns", re.IGNORECASE)
_PAN = re.compile(r"\d{4}[A-Z]\b", re.ASCII)
_ID_WORD = re.compile(
    r"\b(?:national|citizen|resident|personal|identity|identification|identité|identidad|social|tax(?:payer)?|insurance|"
    r"(?:my|your|his|her|their|person'?s?) ids?|id (?:card|document))\b",
    re.IGNORECASE,
)
# One look in the place of many: most places hold no form and follow no name.
_FORM = re.compile("|".join(kind.pattern.pattern for kind in NATIONAL_IDS if not kind.word), re.IGNORECASE | re.ASCII)
_NAME = re.compile("|".join(kind.word.pattern for kind in NATIONAL_IDS if kind.word), re.IGNORECASE)
_GOODS_WORD = re.compile(r"item|product|order|return|payment|invoice|ticket|sku|tracking|serial", re.IGNORECASE)
_NAMED_NUMBER = re.compile(
    r"\b(driv(?:er|ing)(?:'?s|s')? licen[cs]e|passport)(?: (?:number|no\.?|id|#))?(?: ?(?:is|was|=|:|#))* ?((?=[\w-]*\d[\w-]*\d[\w-]*\d)"
    r"[A-Z0-9][A-Z0-9-]{4,18})(?!\w)",
    re.IGNORECASE,
)


def find_pii(text: str, *, types: Collection[str], regions: Sequence[str] = ()) -> list[Span]:
    """Find personal data, in order, without overlaps.

    Args:
        text: any text.
        types: of `email`, `phone`, `card`, `iban`, `ip`, `mac`, `national_id`.
        regions: countries (ISO 3166) whose telephone numbers are found without a word beside them.
    """
    seen = Look(text, places_of_digits(text), regions)
    found: list[Span] = []
    for name in _FINDERS:
        if name in types:
            for span in _FINDERS[name](seen):
                if not any(span.start < other.end and other.start < span.end for other in found):
                    found.append(span)
    return sorted(found)


def _emails(look: Look) -> Iterator[Span]:
    text = look.text
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.search(text, max(0, at - 64), at)
        domain = _DOMAIN.match(text, at + 1)
        if local and domain and domain[1].lower() not in _NOT_A_DOMAIN:
            start = local.end() - len(local[0].lstrip(".'-%"))
            is_remote = text[start:at] == "git" and text[domain.end() : domain.end() + 1] in {":", "/"}
            if start < at and text[at - 1] != "." and not is_remote:
                yield Span(start, domain.end(), "EMAIL")
        at = text.find("@", at + 1)
    for match in _SPELT_EMAIL.finditer(text) if _SPELT_AT.search(text) else ():
        yield Span(*match.span(), "EMAIL")


def _ibans(look: Look) -> Iterator[Span]:
    text = look.text
    # The bank's letters may keep the first digits apart from the rest.
    for match in near(_IBAN, text, look.places, before=12):
        length = _IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        compact, end = "", match.start()
        while end < len(text) and len(compact) < length:
            if text[end].isascii() and text[end].isalnum():
                compact += text[end].upper()
            elif text[end] not in " -" or not text[end - 1].isalnum():
                break
            end += 1
        if length and len(compact) == length and not text[end : end + 1].isalnum() and mod97(compact):
            yield Span(match.start(), end, "IBAN")


def _cards(look: Look) -> Iterator[Span]:
    text = look.text
    for match in near(_CARD, text, look.places):
        digits = re.sub(r"\D", "", match[0])
        if not luhn(digits) or len(set(digits)) == 1:
            continue
        before = text[max(0, match.start() - 48) : match.start()]
        if _CARD_WORD.search(before) or (_CARD_FORM.fullmatch(digits) and not _OTHER_WORD.search(before)):
            yield Span(*match.span(), "CARD")


def _ips(look: Look) -> Iterator[Span]:
    text = look.text
    for match in _IPV4.finditer(text) if text.count(".") > 2 and _DOTS.search(text) else ():
        if _is_address(match[0]):
            before = text[max(0, match.start() - 24) : match.start()]
            is_numbering = max(map(int, match[0].split("."))) < 20 and not _ADDRESS_WORD.search(before)
            if not is_numbering and not _NUMBERED_WORD.search(before):
                yield Span(*match.span(), "IP")
    for match in _IPV6.finditer(text) if _COLONS.search(text) else ():
        if _is_address(match[0]) and len(re.findall("[0-9A-Fa-f]+", match[0])) > 2:
            yield Span(*match.span(), "IP")


def _is_address(value: str) -> bool:
    """Whether it is the address of some machine: not this very one, nor a mask."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or value.startswith(("255.", "0.")))


def _macs(look: Look) -> Iterator[Span]:
    text = look.text
    for match in _MAC.finditer(text) if _COLONS.search(text) else ():
        if len(set(re.sub("[:-]", "", match[0]).lower())) > 1:
            yield Span(*match.span(), "MAC")


def _national_ids(look: Look) -> Iterator[Span]:
    text = look.text
    if "licen" in text or "assport" in text:
        for match in _NAMED_NUMBER.finditer(text):
            yield Span(*match.span(2), "PASSPORT" if match[1].lower() == "passport" else "DRIVING_LICENCE")
    for start, end in [*look.places, *(match.span() for match in _PAN.finditer(text))]:
        before = text[max(0, start - 48) : start]
        kinds = [kind for kind in NATIONAL_IDS if not kind.word] if _FORM.search(text, max(0, start - 8), end + 8) else []
        if _NAME.search(before):
            kinds += [kind for kind in NATIONAL_IDS if kind.word and kind.word.search(before)]
        if _ID_WORD.search(before) and not _GOODS_WORD.search(before):
            kinds += [kind for kind in NATIONAL_IDS if kind.word and kind.is_checked]
        for kind in kinds:
            for match in near(kind.pattern, text, [(start, end)], before=8, after=8):
                if kind.is_valid(re.sub(r"[\s.\-+/]", "", match[0]).upper()):
                    yield Span(*match.span(), kind.kind)


def _phones(look: Look) -> Iterator[Span]:
    return (Span(start, end, "PHONE") for start, end in phones(look.text, look.places, regions=look.regions))


# In order: what is found first keeps its place, so the kinds whose form says most go first.
_FINDERS: Mapping[str, Finder] = {
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "mac": _macs,
    "ip": _ips,
    "national_id": _national_ids,
    "phone": _phones,
}
