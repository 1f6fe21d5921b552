import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.pipeline.yaml_lines import dotted, dump_yaml, is_storable, parse_scalar, parse_yaml

# What a person means by each scalar. Where YAML 1.1 or PyYAML reads something else, a comment says what.
SCALARS = [
    ("1e-4", 0.0001),  # PyYAML: text
    ("1.5E+2", 150),
    ("1_000", 1000),
    ("+7", 7),
    ("-0", 0),
    ("0", 0),
    ("0o17", 15),
    ("0x1F", 31),
    ("0b101", 5),
    (".5", 0.5),
    ("5.", 5),
    ("1e3", 1000),
    ("3m", "3m"),
    ("12:30", "12:30"),  # YAML 1.1: 750
    ("2026-11-21", "2026-11-21"),  # YAML 1.1: a date
    ("1.2.3", "1.2.3"),
    ("e5", "e5"),
    ("_1", "_1"),
    (".", "."),
    ("y", "y"),
    ("yes", True),
    ("off", False),
    ("true", True),
    ("~", None),
    ("null", None),
    ("'1e-4'", "1e-4"),
    ("!!str 5", "5"),
    ("!!float 3", 3),
]


@pytest.mark.parametrize(("text", "meant"), SCALARS)
def test_a_scalar_is_read_as_people_mean_it(text: str, meant: object) -> None:
    document = parse_yaml(f"key: {text}")
    assert document.problems == ()
    assert document.value == {"key": meant}
    assert type(document.value["key"]) is type(meant)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("017", "017 is ambiguous: some read it as octal. Write 17, or quote it if it is text"),
        (".inf", ".inf is not a finite number. If it is text, quote it"),
        ("-.INF", "-.INF is not a finite number. If it is text, quote it"),
        (".nan", ".nan is not a finite number. If it is text, quote it"),
        ("12e4567", "12e4567 is not a finite number. If it is text, quote it"),
        ("99999999999999999999", "99999999999999999999 is too large for a whole number (64 bits)"),
        ("!!int abc", "abc is not a number. If it is text, quote it"),
        ("!!python/name:os.system", "the tag `!!python/name:os.system` is not allowed"),
        ("!!binary aGk=", "the tag `!!binary` is not allowed"),
        ("!mine x", "the tag `!mine` is not allowed"),
        ('"\\0"', "the text holds U+0000 or half a surrogate pair"),
        ('"\\ud800"', "the text holds U+0000 or half a surrogate pair"),
    ],
)
def test_a_scalar_without_a_safe_meaning_is_refused_with_its_line(text: str, message: str) -> None:
    document = parse_yaml(f"first: 1\nkey: {text}")
    (problem,) = document.problems
    assert (problem.line, problem.key) == (2, "key")
    assert problem.message.startswith(message)
    assert document.broken == {("key",)}
    assert document.value == {"first": 1, "key": None}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a:\n\tb: 1", 2, "a tab is used to indent. YAML indents with spaces"),
        ("a: 1\npath: *.jsonl", 2, "text that begins with `*` must be quoted (YAML reads it as an alias)"),
        ("path: *data", 1, "text that begins with `*` must be quoted (YAML reads it as an alias)"),
        ("path: @x", 1, "text that begins with `@` must be quoted"),
        ("a: b: c", 1, "a colon where none can stand: the line is indented too deep, or text that holds `: ` is not quoted"),
        ("a: 1\nbcd\ne: 2", 2, "a key without its colon. Write `key: value`"),
        ('a: 1\np: "C:\\Users"', 2, "a backslash in double quotes. Use single quotes"),
        ('a: 1\nb: "x\nc: 1\n', 2, "a quote is opened and not closed"),
        ("z: 1\na: [1, 2\nb: 3", 2, "a `[` or `{` is opened and not closed, or a comma is missing"),
        ("a:\n  - 1\n b: 2", 3, "the indentation does not match the lines above, or text goes on after a closing quote"),
        ("a: 1\n---\nb: 1", 2, "a second document begins (`---`). A recipe is one document"),
        ("a: 1\nb: \x07", 2, "the control character U+0007 is not allowed"),
        ("a: !<", 1, "text that begins with `!` must be quoted (YAML reads it as a tag)"),
        ("a: ]", 1, "not valid YAML: expected the node content, but found ']'"),
    ],
)
def test_broken_yaml_is_explained_with_the_line_of_the_mistake(text: str, line: int, message: str) -> None:
    document = parse_yaml(text)
    assert document.syntax_error
    assert document.problems == ((line, "YAML", message),)


def test_a_key_that_stands_twice_is_a_problem_at_its_second_line() -> None:
    document = parse_yaml("train:\n  epochs: 1\n  seed: 2\n  epochs: 3\n")
    assert document.problems == ((4, "train.epochs", "the key stands twice, first on line 2. Remove one of them"),)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse_yaml("on: 1\nno: 2\n3: 4").value == {"on": 1, "no": 2, "3": 4}


def test_a_key_that_is_no_scalar_is_a_problem() -> None:
    document = parse_yaml("a: 1\n? [b]\n: 2")
    assert document.problems == ((2, "?", "a key must be a plain word, not a list or a mapping"),)


def test_aliases_and_merges_give_independent_values() -> None:
    document = parse_yaml("a: &x {p: [1], q: 2}\nb: *x\nc:\n  <<: *x\n  q: 3\n")
    assert document.value == {"a": {"p": [1], "q": 2}, "b": {"p": [1], "q": 2}, "c": {"p": [1], "q": 3}}
    assert document.value["a"]["p"] is not document.value["b"]["p"]


def test_an_alias_bomb_is_refused_without_expanding_it() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]  # 10 ** 12 values
    document = parse_yaml("\n".join(levels))
    assert [problem.message for problem in document.problems] == ["the aliases expand to more than 100,000 values"]


def test_an_alias_inside_its_own_value_is_refused() -> None:
    document = parse_yaml("a: 1\nb: &b\n  c: [*b]\n")
    assert document.problems == ((2, "b.c[0]", "an alias stands inside the value that it names"),)


def test_values_nested_too_deeply_are_refused() -> None:
    document = parse_yaml("[" * 1500)
    assert document.problems == ((None, "YAML", "the values are nested too deeply to be a recipe"),)


def test_a_scalar_option_needs_no_quotes() -> None:
    for text in ("*.jsonl", "a: b", "#x", "[", "@home", "- a"):
        assert parse_scalar(text).value == text
    assert parse_scalar("1e-4").value == 0.0001
    assert parse_scalar("").value is None


def test_places_are_those_of_the_keys() -> None:
    document = parse_yaml("# comment\na:\n\n  - b: 1\n    c: no\n  - {d: [\n     2]}\n")
    lines = {dotted(path): place.line for path, place in document.places.items()}
    assert lines == {"": 2, "a": 2, "a[0]": 4, "a[0].b": 4, "a[0].c": 5, "a[1]": 6, "a[1].d": 6, "a[1].d[0]": 7}
    assert document.places["a", 0, "c"].raw == "no"
    assert document.place(("a", 0, "missing")).line == 4


texts = st.text(max_size=12).filter(is_storable) | st.sampled_from(["1e-4", "no", "", "07", "<<", "*x", "a: b", "\x85", "- "])
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | finite | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=15
)


@given(values)
def test_what_is_dumped_is_read_back_equal(value: object) -> None:
    document = parse_yaml(dump_yaml(value))
    assert document.problems == ()
    assert document.value == value


words = st.text("abcdefgh", min_size=1, max_size=5).map(lambda word: f"k{word}")
trees = st.recursive(st.integers(0, 9), lambda inner: st.dictionaries(words, inner, min_size=1, max_size=4), max_leaves=20)


@given(trees)
def test_the_line_of_every_key_is_the_line_on_which_it_stands(tree: object) -> None:
    text = yaml.safe_dump({"root": tree}, default_flow_style=False)  # one key per line
    lines = text.splitlines()
    for path, place in parse_yaml(text).places.items():
        if path:
            assert place.line is not None
            assert lines[place.line - 1].strip().startswith(f"{path[-1]}:")
            assert (len(lines[place.line - 1]) - len(lines[place.line - 1].lstrip())) == 2 * (len(path) - 1)


@given(st.text(max_size=60))
def test_no_text_raises(text: str) -> None:
    document = parse_yaml(text)
    assert document.syntax_error <= bool(document.problems)


@given(finite)
def test_every_finite_float_is_read_exactly(number: float) -> None:
    read = parse_scalar(repr(number)).value
    assert isinstance(read, int | float)
    assert math.isclose(read, number, rel_tol=0, abs_tol=0)
