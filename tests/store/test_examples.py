"""The examples in the docstrings of the store run as written."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["digest", "artefacts", "workspace", "ledger", "doctor"])
def test_the_examples_of_a_module_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"tunesmith.store.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
