"""What is wrong with the texts themselves: damage, left-overs, and answers that are none.

Nearly every text is sound, so each check is behind a cheap question: is the text ASCII, and has it any sign that could matter?
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tunesmith.data.validation.finding import Found

__all__ = ["CONTROL_CHARACTERS", "CONTROL_TOKENS", "SURROGATES", "Turn", "check_answers", "check_text", "control_pattern"]

CONTROL_TOKENS = re.compile(
    r"<\|(?:im_start|im_end|endoftext|begin_of_text|end_of_text|eot_id|eom_id|start_header_id|end_header_id|system|user|assistant"
    r"|end|eos|pad|START_OF_TURN_TOKEN|END_OF_TURN_TOKEN)\|>|<(?:start_of_turn|end_of_turn|bos|eos|pad|unk|/s)>|<</?SYS>>"
    r"|\[/?INST\]|\[(?:TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]"
)
"""The control tokens of well-known chat formats, for when no tokenizer says which are its own."""

CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
SURROGATES = re.compile("[\ud800-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]")
"""What stands for a byte that is no text. It was a letter once, so nothing may take it out."""

_PLACEHOLDER = re.compile(
    r"\{\{\s*[^{}\n]{1,60}\}\}|\{%-?\s*\w[^{}\n]{0,80}%\}|\$\{[A-Za-z_][\w.]{0,40}\}"
    r"|\[(?:insert|your|enter|add|placeholder|name of)\b[^\]\n]{0,60}\]|<(?:insert|your|enter)[ _-][^>\n]{0,60}>",
    re.IGNORECASE,
)
_HTML = re.compile(
    r"</?(?:a|b|i|u|p|br|hr|em|h[1-6]|li|ol|ul|td|th|tr|div|img|pre|sub|sup|span|font|body|head|html|table|tbody|strong|script"
    r"|style|iframe|button|input|form|blockquote|center)(?:\s[^<>]{0,300})?\s*/?>|&(?:amp|lt|gt|quot|nbsp|apos|#\d{2,5}|#x[0-9a-f]{2,4});",
    re.IGNORECASE,
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_NO_ANSWER = re.compile(
    r"(?:#(?:n/?a|nv|ref!|value!|name\?|div/0!|num!|null!)|"  # of Excel
    r"n/?a|none|null|nan|todo|tbd|fixme|undefined|xxx+|lorem ipsum.*|[.…?\-_*\s]+)\Z",
    re.IGNORECASE | re.DOTALL,
)
_OPEN_END = re.compile(
    r"[,;(\[{]\Z|(?<=\s)(?:and|or|the|a|an|of|to|with|for|in|on|at|by|from|is|are|was|that|which|because|your|our)\Z"
)
_BLANKS = re.compile(r"\s+")
_ENGLISH = (" the ", " and ", " you", " to ", " of ", " is ", " in ", " for ", " it ")

_NOT_WORDS = re.compile(r"[\d\W_]+")

_LONG_ANSWER = 200
"""Characters from which an answer in sentences that ends in the middle of one is taken for cut off."""
_ENOUGH_TO_TELL = 80
"""Characters from which the language of a text is told with some certainty."""
_SURE = 20.0
"""Nats by which a text must be likelier in its own language than in the other text's."""


class Turn(NamedTuple):
    """One message as the checks of answers see it."""

    role: str
    content: str
    place: tuple[str, int, str]
    """The list, the number and the key of the message, or the name of a column alone."""

    @property
    def at(self) -> str:
        """The place for people, such as `messages[2].content`."""
        key, i, name = self.place
        return f"{key}[{i}].{name}" if name else key


def control_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """The pattern that finds any of these control tokens in a text."""
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or r"(?!)")


def check_text(text: str, *, at: str, control: re.Pattern[str]) -> list[Found]:
    """Find damage and left-overs in one text."""
    has_sign = "<" in text or "[" in text or "{" in text or "&" in text or "$" in text
    if text.isascii():
        # A search of a string for one sign, or whether all can be printed, takes a tenth of a pattern's time.
        if not has_sign and text.replace("\n", "").isprintable():
            return []
        found = []
    else:
        found = list(_check_beyond_ascii(text, at=at))
    return found + _check_signs(text, at=at, control=control, has_sign=has_sign)


def _check_signs(text: str, *, at: str, control: re.Pattern[str], has_sign: bool) -> list[Found]:
    found: list[Found] = []
    if match := CONTROL_CHARACTERS.search(text):
        told = f"control character U+{ord(match[0]):04X} at position {match.start() + 1}"
        found.append(Found("control_character", told, at, _around(text, match)))
    if match := control.search(text):
        told = f"the control token `{match[0]}` stands in the text"
        is_fixable = match.start() == 0 or text.rstrip().endswith(tuple(control.findall(text)))
        found.append(Found("control_token", told, at, _around(text, match), is_fixable=is_fixable))
    if not has_sign:
        return found
    prose = _CODE.sub("", text) if "`" in text else text
    if match := _PLACEHOLDER.search(prose):
        found.append(Found("template_placeholder", f"a placeholder was not filled in: {match[0]}", at, _around(prose, match)))
    if ("<" in prose or "&" in prose) and (match := _HTML.search(prose)):
        found.append(Found("html_leftover", f"HTML was left over: {match[0][:40]}", at, _around(prose, match)))
    return found


def _check_beyond_ascii(text: str, *, at: str) -> Iterator[Found]:
    if match := _BYTES.search(text):
        told = f"byte 0x{ord(match[0]) - 0xDC00:02x} is not UTF-8, at position {match.start() + 1}"
        yield Found("not_utf8", told, at, _around(text, match))
        return
    if match := SURROGATES.search(text):
        told = f"U+{ord(match[0]):04X} is half a character, at position {match.start() + 1}"
        yield Found("lone_surrogate", told, at, _around(text, match))
        return
    if (place := text.find("\ufffd")) >= 0:
        told = f"the replacement character U+FFFD stands at position {place + 1}"
        yield Found("replacement_character", told, at, text[max(place - 30, 0) : place + 30])
    from ftfy import badness, fix_encoding

    if badness.is_bad(text):
        better = fix_encoding(text)
        if better != text:
            told = f"looks wrongly decoded; it may mean {_first_difference(text, better)!r}"
            yield Found("mojibake", told, at, text, is_fixable=not badness.is_bad(better) and "\ufffd" not in better)
        else:
            yield Found("mojibake", "looks wrongly decoded", at, text, is_fixable=False)


def check_answers(turns: Sequence[Turn]) -> Iterator[Found]:
    """Find answers that are none: equal to their question, cut off, a stand-in, or in another language."""
    question = ""
    for turn in turns:
        if turn.role == "user":
            question = turn.content
        elif turn.role == "assistant" and turn.content:
            answer = turn.content.strip()
            if question and answer and len(answer) <= 2 * len(question) and _folded(answer) == _folded(question):
                yield Found("answer_equals_question", "the answer repeats its question", turn.at, answer)
            elif _NO_ANSWER.match(answer):
                yield Found("no_real_answer", f"the answer is only {answer[:20]!r}", turn.at, answer)
            elif told := _cut_off(answer):
                yield Found("truncated_answer", told, turn.at, "…" + answer[-60:])
            if question and (told := _languages(question, answer)):
                yield Found("language_mix", told, turn.at, answer)


def _cut_off(answer: str) -> str:
    """Why an answer seems to end in the middle, or nothing."""
    if not answer:
        return ""
    if answer.count("```") % 2:
        return "the answer opens a block of code and never closes it"
    last = answer[-1]
    if not (last.isalnum() or last in ",;([{") or last.isdigit():
        return ""
    if match := _OPEN_END.search(answer):
        return f"the answer ends with `{match[0]}`" if len(answer) > 30 else ""
    line = answer.rpartition("\n")[2]
    # A heading, a list or a name at the end is no sentence: only a long last line of an answer that has sentences counts.
    if (
        len(answer) >= _LONG_ANSWER
        and len(line) >= _LONG_ANSWER // 2
        and ". " in line
        and not line.lstrip().startswith(tuple("-*#|•0123456789"))
    ):
        return "the answer ends in the middle of a sentence"
    return ""


def _languages(question: str, answer: str) -> str:
    """How question and answer differ in language, where both are long enough to tell and neither could be the other's."""
    if min(len(question), len(answer)) < _ENOUGH_TO_TELL:
        return ""
    if question.isascii() and answer.isascii() and all(any(word in text for word in _ENGLISH) for text in (question, answer)):
        return ""
    asked, answered = (_NOT_WORDS.sub(" ", _CODE.sub(" ", text[:1000])) for text in (question, answer))
    if min(len(asked), len(answered)) < _ENOUGH_TO_TELL:
        return ""
    import py3langid

    ranks = [dict(py3langid.rank(text)) for text in (asked, answered)]
    first, second = (max(rank, key=rank.__getitem__) for rank in ranks)
    sure = all(
        rank[mine] - rank[other] > _SURE for rank, mine, other in zip(ranks, (first, second), (second, first), strict=True)
    )
    return f"the question looks like `{first}`, the answer like `{second}`" if first != second and sure else ""


def _folded(text: str) -> str:
    return _BLANKS.sub(" ", text).strip().casefold()


def _around(text: str, match: re.Match[str]) -> str:
    return text[max(match.start() - 30, 0) : match.end() + 40]


def _first_difference(text: str, better: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, better, strict=False)) if a != b), 0)
    return better[max(at - 15, 0) : at + 25]
