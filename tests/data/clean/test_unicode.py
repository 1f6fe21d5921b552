import unicodedata

import pytest

from tunesmith.data.clean.unicode import normalised


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d👩\u200d👧\u200d👦 and 👩🏽\u200d🚀 and ❤\ufe0f\u200d🔥",  # emoji sequences
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England, a flag made of tags
        "1\ufe0f\u20e3 and ©\ufe0f",
        "می\u200cخواهم کتاب\u200cها",  # Persian
        "क्\u200dष and ক্\u200cষ and ക്\u200d",  # Hindi, Bengali, Malayalam
        "\u202bשלום\u202c world\u200f!",  # direction marks where there is something to direct
        "ភាសា\u200bខ្មែរ",  # Khmer, whose words a zero-width space divides
        "全角\u3000空白",
        "tabs\tand\nlines",
    ],
)
def test_what_a_script_or_an_emoji_needs_is_kept(text: str) -> None:
    assert normalised(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301 is é", "é is é"),
        ("\ufeffzero\u200bwidth\u2060 joi\u200dner", "zerowidth joiner"),
        ("soft\u00adhyphen", "softhyphen"),
        ("10\u00a0000\u202f€", "10 000 €"),
        ("a\x00b\x07c\x7f", "abc"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07done", "red done"),
        ("one\u2028two\x85three", "one\ntwo\nthree"),
        ("plain \u202etxet\u202c\u200e", "plain txet"),  # nothing here is written from right to left
        ("שלום \u202etxet", "שלום txet"),  # an override deceives in any text
        ("hidden\U000e0069\U000e0067\U000e006e", "hidden"),  # tags smuggle text past a reader
        ("half \ud800", "half \ufffd"),
        ("a\ufe0f", "a"),
    ],
)
def test_what_nobody_sees_is_removed(text: str, expected: str) -> None:
    assert normalised(text) == expected
