"""Which Latin encoding a text is in: the one in which it reads as a language that the encoding serves, with the fewest odd signs.

A byte beyond ASCII stands for a letter in one encoding and for a sign or a foreign letter in another, so wrong ones show themselves.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

__all__ = ["LATIN", "Latin", "decodes", "has_controls", "latin_of"]

_WESTERN = ("ca", "da", "de", "en", "es", "eu", "fi", "fo", "fr", "ga", "gl", "is", "it", "nb", "nl", "nn", "no", "pt", "sv")
_CENTRAL = ("bs", "cs", "hr", "hu", "pl", "ro", "sk", "sl", "sq", "sr")
# Latin alphabets share most bytes; which languages each serves decides between them, and of equals the first is taken: those of
# MS-DOS and of old Macs, as Excel still writes them, come last.
LATIN = {
    "cp1252": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1254": ("az", "ku", "tr"),
    "cp1257": ("et", "lt", "lv"),
    "cp1258": ("vi",),
    "iso8859_3": ("eo", "mt"),
    "cp850": _WESTERN,
    "mac_roman": _WESTERN,
    "cp437": _WESTERN,
}
# The letters beyond ASCII that a language writes, those of its common loans among them: a decoding that gives others is odd.
_ALPHABETS = {
    "bs": "čćđšž",
    "ca": "àçèéíïòóúü",
    "cs": "áčďéěíňóřšťúůýž",
    "da": "æøåäéèêöü",
    "de": "äöüßéèêàç",
    "en": "éèêëïôöüçñáâ",
    "es": "áéíñóúüç",
    "et": "äõöüšž",
    "fi": "äöåéšžü",
    "fr": "àâæçèéêëîïôœùûüÿ",
    "ga": "áéíóú",
    "gl": "áéíñóúü",
    "hr": "čćđšž",
    "hu": "áéíóöőúüű",
    "is": "áðéíóúýþæö",
    "it": "àèéìíîòóùú",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūž",
    "nb": "æøåäéèêòóôöü",
    "nl": "àáäçèéêëíïóöúü",
    "nn": "æøåäéèêòóôöü",
    "no": "æøåäéèêòóôöü",
    "pl": "ąćęłńóśźż",
    "pt": "áàâãçéêíóôõúü",
    "ro": "ăâîșțşţ",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "sl": "čćđšž",
    "sr": "čćđšž",
    "sv": "åäöéàèüæø",
    "tr": "çğıi̇öşüâîû",
}
_JOINING = "’·\xad"
"""Signs that stand within words: l’eau, col·lecció."""
_BESIDE = "‘’“”‚„‹›«»–—…¿¡€£°ºª§®™©·\xa0\xad"
"""Signs that any text may have beside its words."""
_STRAYING = "§¤¢£¥¡¿ˆ†‡¸‚„¦±¬µ¨´˜¯"
"""Signs that end no word."""
_BEYOND = re.compile(r"[^\x00-\x7f]")
_CONTROLS = re.compile(r"[\x80-\x9f]")


class Latin(NamedTuple):
    """A Latin encoding that a text may be in, and whether it then has hardly a sign or letter that its language has not."""

    name: str
    language: str
    is_plain: bool


def latin_of(sample: bytes) -> Latin | None:
    """The Latin encoding whose languages hold the one that the text is in, with the fewest odd signs; of equals the first."""
    from py3langid.langid import classify

    best: tuple[int, Latin] | None = None
    for name, languages in LATIN.items():
        if not decodes(sample, name) or has_controls(text := sample.decode(name)):
            continue
        language = str(classify(text)[0])
        num_odd = _num_odd(text, language)
        score = num_odd - (10 if language in languages else 0)
        if best is None or score < best[0]:
            best = score, Latin(name, language, language in languages and _is_plain(text, language, num_odd=num_odd))
    return best and best[1]


def decodes(sample: bytes, name: str) -> bool:
    """Whether bytes are sound in an encoding; a character may be cut at their end."""
    try:
        codecs.getincrementaldecoder(name)(errors="strict").decode(sample)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def has_controls(text: str) -> bool:
    """Whether more than one in twenty characters beyond ASCII is a control character: no text has those, but wrong decodings do."""
    return len(_CONTROLS.findall(text)) * 20 > len(_BEYOND.findall(text))


def _num_odd(text: str, language: str) -> int:
    """Signs inside words or where no word ends so, capitals after small letters, letters foreign to the language, and controls."""
    alphabet = _ALPHABETS.get(language, "")
    return sum(_is_odd(before, sign, after, alphabet) for before, sign, after in _beyond_ascii(text))


def _is_odd(before: str, sign: str, after: str, alphabet: str) -> bool:
    if sign.isalpha():
        foreign = alphabet != "" and sign.lower() not in alphabet and (before.isalpha() or after.isalpha())
        return foreign or (before.islower() and not sign.islower()) or (sign.islower() and after.isupper())
    if "\x80" <= sign <= "\x9f":
        return True
    return before.isalpha() and (sign not in _JOINING if after.isalpha() else sign in _STRAYING)


def _is_plain(text: str, language: str, *, num_odd: int) -> bool:
    alphabet = _ALPHABETS.get(language, "")
    signs = _BEYOND.findall(text)
    num_foreign = sum(sign.lower() not in alphabet and sign not in _BESIDE for sign in signs)
    return (num_odd + num_foreign) * 50 <= len(signs)


def _beyond_ascii(text: str) -> list[tuple[str, str, str]]:
    """Every character beyond ASCII and the two around it."""
    return [(text[max(0, at - 1) : at], text[at], text[at + 1 : at + 2]) for at in (m.start() for m in _BEYOND.finditer(text))]
