"""Keys and passwords are replaced by placeholders such as `[SECRET_1]`: a model repeats what it has read.

Known by form: the keys of well-known services, private keys, JSON Web Tokens, addresses with a password in them; and by name and
randomness: what is assigned to a `password`, `secret`, `token` or `key` and looks drawn by chance.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tunesmith.data.clean.find_pii import Span
from tunesmith.data.clean.placeholders import scrub
from tunesmith.data.clean.step import Step, each
from tunesmith.data.clean_config import Settings

__all__ = ["build", "find_secrets"]

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:\s*[A-Za-z0-9+/=:, -]+)*)",
    re.DOTALL,
)
_PASSWORD_IN_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"<>]{0,100}:([^\s/@'\"<>]{3,200})@[^\s/]", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")
# Published forms: the prefix says whose key it is, and the length that it is one.
_FORMS = re.compile(
    r"(?<![\w-])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"  # AWS access key id
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,}|glpat-[\w-]{20,}|gl[a-z]{2,4}-[\w-]{20,}"  # GitHub, GitLab
    r"|sk-(?:proj-|ant-|or-|svcacct-|admin-)?[\w-]{20,}|gsk_\w{40,}|xai-\w{40,}|hf_[A-Za-z]{30,}|pplx-\w{40,}|r8_\w{30,}"  # models
    r"|[sr]k_(?:live|test)_\w{16,}|whsec_\w{20,}|sq0[a-z]{3}-[\w-]{20,}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"  # payments
    r"|xox[abeoprs]-[\w-]{10,}|xapp-\d-[\w-]{20,}|\d{8,10}:AA[\w-]{33}|[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}"  # Slack, Telegram, Discord
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"  # Google
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|key-[0-9a-f]{32}|[0-9a-f]{32}-us\d{1,2}|SK[0-9a-f]{32}|AC[0-9a-f]{32}"  # mail, Twilio
    r"|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|rubygems_[0-9a-f]{40,}|dckr_pat_[\w-]{20,}"  # registries
    r"|do[opr]_v1_[0-9a-f]{40,}|dapi[0-9a-f]{32}|dp\.pt\.\w{40,}|hvs\.[\w-]{20,}|lin_api_\w{30,}|secret_\w{40,}|ntn_\w{40,}"
    r"|PMAK-[0-9a-f-]{50,}|NRAK-[A-Z0-9]{27}|glc_[\w=+/]{30,}|sntry[su]_[\w=+/-]{30,}|AGE-SECRET-KEY-1[A-Z0-9]{50,}"
    r")(?![\w-])"
)
_HOOK = re.compile(
    r"https://(?:hooks\.slack\.com/(?:services|workflows)/[\w/]{20,}|(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,})"
)
# What begins with one of `_WORDS` and is assigned something.
_ASSIGNED = re.compile(
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|key|auth(?:orization)?|credentials?)s?[A-Za-z_]{0,20}['\"`]?\s{0,3}"
    r"(?:=>|:=|==?|:|\bis\b)\s{0,3}(?:bearer |basic )?(['\"`]?)([^\s'\"`,;<>(){}\[\]]{8,400})\1",
    re.IGNORECASE,
)
_KEY_OF = re.compile(
    r"(?:api|access|account|auth|client|encryption|license|master|private|secret|service|shared|signing)[_ -]?\Z", re.IGNORECASE
)
_WORDS = ("pass", "pwd", "secret", "token", "key", "auth", "credential")
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # the length stays, as with lower() it may not
_SHORTEST = 15  # signs of the shortest key that is known by its form alone


def build(_settings: Settings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it has no settings."""
    return each(lambda record: scrub(record, find=find_secrets, same=lambda _kind, value: value))


def find_secrets(text: str) -> list[Span]:
    """Find keys and passwords, in order, without overlaps."""
    found: list[Span] = []
    for span in _candidates(text):
        if not any(span.start < other.end and other.start < span.end for other in found):
            found.append(span)
    return sorted(found)


def _candidates(text: str) -> Iterator[Span]:
    """What looks like a secret, behind cheap looks that most texts do not pass."""
    if "-----BEGIN" in text:
        yield from (Span(*match.span(), "PRIVATE_KEY") for match in _PRIVATE_KEY.finditer(text))
    if "://" in text:
        yield from (Span(*match.span(), "SECRET_URL") for match in _HOOK.finditer(text))
        yield from (Span(*match.span(1), "PASSWORD") for match in _PASSWORD_IN_URL.finditer(text) if _is_real(match[1]))
    if len(max(text.split(), key=len, default="")) >= _SHORTEST:
        yield from (Span(*match.span(), "JWT") for match in _JWT.finditer(text))
        yield from (Span(*match.span(), "API_KEY") for match in _FORMS.finditer(text))
    lower = text.lower() if text.isascii() else text.translate(_ASCII_LOWER)
    for word in _WORDS:
        at = lower.find(word)
        while at >= 0:
            match = _ASSIGNED.match(text, at)
            if match and _is_random(match[2]) and (word != "key" or _KEY_OF.search(text, max(0, at - 12), at)):
                yield Span(*match.span(2), "SECRET")
            at = lower.find(word, at + 1)


def _is_real(password: str) -> bool:
    """Whether a password in an address is more than a stand-in such as `password` or `${PASSWORD}`."""
    return not re.fullmatch(r"(?i)[$%{<\[].*|pass(?:word|wd)?|pwd|secret|x+|\*+|\.+|token|your.*", password)


def _is_random(value: str) -> bool:
    """Whether a value looks drawn by chance: two kinds of signs, and three bits for each of its signs (Shannon 1948)."""
    if not _is_real(value) or value.startswith(("http://", "https://", "/", "./", "os.", "process.", "env.")):
        return False
    kinds = sum(any(test(sign) for sign in value) for test in (str.isdigit, str.islower, str.isupper))
    kinds += any(not sign.isalnum() for sign in value)
    counts = Counter(value)
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    has_digit_or_sign = any(sign.isdigit() or sign in "!@#$%^&*+=?~|" for sign in value)
    return has_digit_or_sign and kinds >= 2 and bits >= min(3.0, 0.8 * math.log2(len(value)))
