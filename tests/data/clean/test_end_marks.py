"""Marks of other tools at the end of a text."""

import pytest

from tunesmith.data.clean.end_marks import without_end_marks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes, we do.<|endoftext|>", "Yes, we do."),
        ("Yes, we do. </s>\n", "Yes, we do."),
        ("Ja.<|im_end|><|endoftext|>", "Ja."),
        ("Ja.\n<|im_end|>\n<|endoftext|>\n", "Ja."),
        ("Oui<|eot_id|>", "Oui"),
        ("No <end_of_turn>", "No"),
        ("No [EOS]", "No"),
        ("</s>" * 200, ""),
    ],
)
def test_marks_at_the_end_go_with_the_blanks_before_them(text: str, expected: str) -> None:
    assert without_end_marks(text) == expected


@pytest.mark.parametrize(
    "text", ["The token </s> ends a sequence.", "<s>struck</s> out", "a > b", "x[0]", "", "<b>bold</b>", "</ s>", "Plain.\n"]
)
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert without_end_marks(text) == text
