"""One spelling for one character: NFC, no invisible characters but those that a script or an emoji needs.

Removed: control characters and terminal escapes, zero-width spaces, soft hyphens, byte order marks, tag characters (which smuggle
text past a reader), direction marks in text without a letter that is written from right to left, and direction overrides anywhere.
Kept: joiners after letters that join (Arabic, Indic scripts) and in emoji, zero-width spaces between letters of scripts without
word spaces, flags made of tags. Every kind of space becomes a plain one, but for the ideographic.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from tunesmith.data.clean.step import Step, each_text
from tunesmith.data.clean_config import Settings

__all__ = ["build", "normalised"]

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SPACES = "\u00a0\u2000-\u200a\u202f\u205f"
_SUSPECT = re.compile(
    rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufe00-\ufe0f"
    rf"\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\U000e0000-\U000e01ef{_SPACES}]"
)
_FLAG_TAGS = re.compile("(?<=\U0001f3f4)[\U000e0020-\U000e007e]{1,8}\U000e007f")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
# Thai, Lao, Tibetan, Myanmar, Khmer, Tai and their extensions, written without spaces between words.
_NO_WORD_SPACES = re.compile("[\u0e00-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf]")
_IDEOGRAPH = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LINES = frozenset("\x0b\x0c\x85\u2028\u2029")
_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069")
_JOINERS = frozenset("\u200c\u200d")


def build(_settings: Settings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it has no settings."""
    return each_text(normalised)


def normalised(text: str) -> str:
    """The text in NFC, without characters that nobody sees and no script needs."""
    if text.isascii():
        if not _CONTROL.search(text):
            return text
    elif not _SUSPECT.search(text):
        return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
    text = _ESCAPE.sub("", text)
    flags = {place for flag in _FLAG_TAGS.finditer(text) for place in range(*flag.span())}
    has_right_to_left = _RIGHT_TO_LEFT.search(text) is not None
    kept: list[str] = []
    at = 0
    for match in _SUSPECT.finditer(text):
        place = match.start()
        kept.append(text[at:place])
        at = match.end()
        if place in flags:
            kept.append(match[0])
            continue
        before = next((piece[-1] for piece in reversed(kept) if piece), "")
        kept.append(_instead(match[0], before, text[at : at + 1], has_right_to_left=has_right_to_left))
    return unicodedata.normalize("NFC", "".join((*kept, text[at:])))


def _instead(sign: str, before: str, after: str, *, has_right_to_left: bool) -> str:
    """What stands in place of one suspect character: itself, another, or nothing."""
    if sign in _LINES:
        return "\n"
    if "\ud800" <= sign <= "\udfff":
        return "\ufffd"
    if unicodedata.category(sign) == "Zs":
        return " "
    is_needed = (sign in _MARKS and has_right_to_left) or (before != "" and _is_needed(sign, before, after))
    return sign if is_needed else ""


def _is_needed(sign: str, before: str, after: str) -> bool:
    """Whether an invisible character means something after the one before it."""
    category = unicodedata.category(before)
    return (
        # A joiner: after a letter or mark of a script whose letters join, or in an emoji.
        (sign in _JOINERS and ((before >= "\u0590" and category[0] in "LMS") or before == "\ufe0f"))
        or (sign == "\u200b" and bool(_NO_WORD_SPACES.match(before) and _NO_WORD_SPACES.match(after)))
        # Variation selectors: of symbols and letters, of Mongolian, of ideographs.
        or ("\ufe00" <= sign <= "\ufe0f" and not before.isspace() and not (before.isascii() and before.isalpha()))
        or (sign == "\u180e" and "\u1800" <= before <= "\u18af")
        or ("\U000e0100" <= sign <= "\U000e01ef" and bool(_IDEOGRAPH.match(before)))
    )
