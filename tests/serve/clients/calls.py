"""Runs the checks of one client, in whichever interpreter has it: `python FILE URL`, a JSON object of failures to stdout.

The interpreter need not know tunesmith, so this imports nothing but the standard library.
"""

from __future__ import annotations

import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

KEY = "sk-right"
QUESTION = [{"role": "user", "content": "Do you open on Sundays?"}]
ANSWER = "We are closed on Sundays."


def main(namespace: Mapping[str, Any]) -> None:
    """Call every function that is named `check_...` with the server's URL, and print what failed."""
    url = sys.argv[1]
    checks: dict[str, Callable[[str], object]] = {
        name: value for name, value in namespace.items() if name.startswith("check_") and inspect.isfunction(value)
    }
    failures = {}
    for name, check in checks.items():
        try:
            check(url)
        except Exception:
            failures[name] = traceback.format_exc()
        else:
            failures[name] = ""
    print(json.dumps(failures))


def raised(kind: type[Exception], call: Callable[..., object], *args: object, **fields: object) -> Any:
    """The exception that a call raises, which must be of this kind."""
    try:
        call(*args, **fields)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
