"""A process that has loaded no model, for proofs: it imports the libraries while whoever will ask still does something else.

Importing takes it longer than all that it is asked. This module imports no torch, so the process can be started first of all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson

__all__ = ["COMMAND", "Answer", "Ask", "fresh_process"]

COMMAND = (sys.executable, "-m", "tunesmith.train.proofs_child")

Answer = Callable[[], dict[str, Any]]
"""Waits for what the process found; raises RuntimeError, with what the process said last, if it failed."""
Ask = Callable[[Path, Mapping[str, object]], Answer]
"""Gives the process its one task, in a folder of its own; it works while whoever asked goes on."""


@contextmanager
def fresh_process() -> Iterator[Ask]:
    """Start a process that has loaded nothing yet. It does not outlive the block."""
    process = subprocess.Popen(  # noqa: S603  our own module, in our own interpreter
        COMMAND, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )

    def ask(folder: Path, task: Mapping[str, object]) -> Answer:
        (folder / "task.json").write_bytes(orjson.dumps(task))
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has failed already, and the answer says why
            process.stdin.write(os.fsencode(folder) + b"\n")

        @cache
        def answer() -> dict[str, Any]:
            _, said = process.communicate()
            if process.returncode:
                raise RuntimeError(f"the fresh process failed: {said.decode(errors='replace').strip()[-300:]}")
            found: dict[str, Any] = orjson.loads((folder / "answer.json").read_bytes())
            return found

        return answer

    with process:
        try:
            yield ask
        finally:
            process.kill()
