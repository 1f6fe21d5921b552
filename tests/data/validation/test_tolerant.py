"""Slips that leave no doubt are mended; where a text could change or be lost, nothing is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.validation.tolerant import parse


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{'a': 'b'}", {"a": "b"}),
        ("""{'a': "it's", "b": 'say "x"', 'c': 'it\\'s'}""", {"a": "it's", "b": 'say "x"', "c": "it's"}),
        ('{"a": [1, 2, ], "b": {"c": 1 ,} , }', {"a": [1, 2], "b": {"c": 1}}),
        ('{"a": True, "b": False, "c": None}', {"a": True, "b": False, "c": None}),
        ('{a: 1, größe_2: "x", if-not: null}', {"a": 1, "größe_2": "x", "if-not": None}),
        ('{"a": "x", "b": {"c": [true', {"a": "x", "b": {"c": [True]}}),
        ('{"a": {"b": []', {"a": {"b": []}}),
        ('{/* "b": 1, */ "a": 1 /* , */} // {', {"a": 1}),
        ('{"a": 1}, # done', {"a": 1}),
        ("""{'a': 'x\\x41\\u00e9\\U0001f642\\n', "b": "\\xa0\\/\\'"}""", {"a": "xAé🙂\n", "b": "\xa0/'"}),
        ('{"a": "tab\tand // no /* remark */ , }"}', {"a": "tab\tand // no /* remark */ , }"}),
        ('{"a": 1e5, "b": -0.5, "c": 12345678901234567890123}', {"a": 1e5, "b": -0.5, "c": 12345678901234567890123}),
        ("{'a': '\\ud83d\\ude42'}", {"a": "🙂"}),
    ],
)
def test_slips_without_doubt_are_mended(line: str, value: object) -> None:
    found, _ = parse(line)
    assert found == value


@pytest.mark.parametrize(
    "line",
    [
        '{"a": "lorem, "ipsum" sic"}',
        "{'a': 'it's'}",
        '{"a": "x" "y"}',
        '{"a": ["x" "y"]}',
        '{"a": "x" "b": 1}',
        '{"a": "no end}',
        '{"a": "x", "b": "no end',
        '{"a": "x",',
        '{"a": "x", "b":',
        '{"a": "x", "b"',
        '{"a": 12',
        '{"a": [',
        '{"a": fox}',
        '{"a": NaN}',
        '{"a": .5}',
        '{"a": 1_000}',
        '{"a": 01}',
        '{"a": 1, "a": 2}',
        '{"a": 1, "a": true}',
        '{"a": 1]',
        '{"a": 1}}',
        '{"a": 1} {"b": 2}',
        '{"a": 1,, "b": 2}',
        '{, "a": 1}',
        '{"a": "x", // y", "b": 1}',
        '{"a": "x" /* y", "b": 1}',
        "{'a': '\\d'}",
        "{'a': '\\/'}",
        "{'a': '\\xg1'}",
        "{'a': '\\U00110000'}",
        "{'a': ('x', 'y')}",
        "{“a”: 1}",
        "{1: 2}",
        "",
    ],
)
def test_what_could_lose_or_change_content_is_not_mended(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the contract
        parse(line)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES, is_ascii=st.booleans())
def test_sound_json_is_read_as_it_is_without_a_slip(value: object, is_ascii: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=is_ascii)) == (value, [])


@given(value=VALUES)
def test_what_python_prints_is_read_as_it_was(value: object) -> None:
    assert parse(repr(value))[0] == value


@given(value=VALUES, data=st.data())
def test_line_that_was_cut_keeps_every_text_it_shows(value: object, data: st.DataObject) -> None:
    """Closing brackets alone are added, and what is added to the line makes it JSON of the same value."""
    line = json.dumps([value])
    cut = line[: data.draw(st.integers(1, len(line)))]
    try:
        found, slips = parse(cut)
    except ValueError:
        return
    assert json.loads(cut + "".join(slip.after or "" for slip in slips)) == found


def test_deep_nesting_is_an_error_that_callers_know() -> None:
    with pytest.raises(RecursionError):
        parse("[" * 100_000)
