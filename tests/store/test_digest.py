"""Canonical JSON and content hashes."""

import hashlib
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.store.digest import canonical_json, digest_of, digest_of_file, digest_of_files

_scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
_values = st.recursive(_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@settings(deadline=None)
@given(_values)
def test_canonical_json_is_read_back_by_the_standard_library(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@settings(deadline=None)
@given(st.dictionaries(st.text(), _scalars), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, object], random) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert digest_of(dict(items)) == digest_of(value)


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters='"\\\x7f', min_codepoint=32)), st.integers(-9, 9)))
def test_ascii_objects_are_spelled_as_compact_sorted_json(value: dict[str, int]) -> None:
    assert canonical_json(value) == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_digest_is_the_sha256_of_the_spelling() -> None:
    # The expected spelling is written out by hand; hashlib gives the digest.
    assert digest_of({"b": [1, 2.5], "a": "é"}) == hashlib.sha256('{"a":"é","b":[1,2.5]}'.encode()).hexdigest()


def test_tuples_mappings_dataclasses_and_enums_are_spelled_as_plain_values() -> None:
    class Colour(StrEnum):
        RED = "red"

    @dataclass(frozen=True)
    class Paint:
        colour: Colour
        layers: tuple[int, ...]

    assert canonical_json(MappingProxyType({"paint": Paint(Colour.RED, (1, 2))})) == b'{"paint":{"colour":"red","layers":[1,2]}}'


@dataclass(frozen=True)
class _Measured:
    value: float


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": {"b": (1, -math.inf)}}, _Measured(math.nan)])
def test_numbers_that_json_cannot_spell_are_refused_rather_than_written_as_null(value: object) -> None:
    with pytest.raises(ValueError, match="no canonical spelling"):
        canonical_json(value)


def test_null_itself_is_fine() -> None:
    assert canonical_json({"a": None, "b": [1.5, "null"]}) == b'{"a":null,"b":[1.5,"null"]}'


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {1, 2}}, 2**70, "\ud800", Path("x")])
def test_values_with_two_spellings_or_none_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


def test_digests_of_files_are_those_of_hashlib_and_sorted_by_path(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    contents = {"z/a.bin": bytes(range(256)) * 9000, "b.txt": b"", "a.txt": b"hello"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    digests = digest_of_files(tmp_path)
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert list(digests) == ["a.txt", "b.txt", "z/a.bin"]
    assert digest_of_file(tmp_path / "a.txt") == digests["a.txt"]
