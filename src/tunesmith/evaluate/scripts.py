"""Which characters make words, in any script, and which scripts write without spaces."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

__all__ = ["is_han", "is_unspaced", "is_word"]

# Scripts that put no space between words: first and last code point of their blocks.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # ideographic iteration mark and zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),  # Bopomofo extended
    (0x31F0, 0x31FF),  # Katakana extended
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x3FFFF),  # Han, supplementary planes
)
_STARTS = tuple(first for first, _ in _UNSPACED)


def is_word(character: str) -> bool:
    """Whether a character is a letter, a digit or a mark that belongs to one (vowel signs, accents)."""
    return unicodedata.category(character)[0] in "LNM"


def is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script that is written without spaces between words."""
    code = ord(character)
    if code < _STARTS[0]:
        return False
    return code <= _UNSPACED[bisect_right(_STARTS, code) - 1][1]


def is_han(character: str) -> bool:
    """Whether a character is an ideograph, as in Chinese; kana are not."""
    code = ord(character)
    return 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF
