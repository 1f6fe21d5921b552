import pytest

from tunesmith.data.clean.whitespace import tidied


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  one  two ", "one two"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("one \t\n\n\n\n two", "one\n\n two"),
        ("\n\n  if a:\n    b", "  if a:\n    b"),
        ("a  b\n```\nx  =  1\n\n\ny\n```\nc  d", "a b\n```\nx  =  1\n\n\ny\n```\nc d"),
        ("```\nnever  closed", "```\nnever  closed"),
        ("name\tsize\nab\t12", "name\tsize\nab\t12"),
        ("- item\n    - below  it", "- item\n    - below it"),
    ],
)
def test_only_whitespace_that_carries_nothing_goes(text: str, expected: str) -> None:
    assert tidied(text) == expected
