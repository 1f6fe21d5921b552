"""What it takes to get a report again: the command, what was judged, on which rows, by which settings and libraries.

A version is trained again by `reproduction.py`.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tunesmith import __version__
from tunesmith.data.rows import plain_record
from tunesmith.evaluate import EvaluateConfig
from tunesmith.records import Record
from tunesmith.store import digest_of

__all__ = ["library_versions", "reproduce"]

_LIBRARIES = ("numpy", "sacrebleu", "torch", "transformers", "tokenizers")


def reproduce(
    records: Sequence[Record], *, config: EvaluateConfig, models: Mapping[str, str], command: Sequence[str]
) -> dict[str, Any]:
    """Plain values for a report's details.

    Args:
        records: the rows that were judged on.
        config: what was measured, its seed included.
        models: for each arm the digest of its model.
        command: that made the report.
    """
    rows = [{key: value for key, value in plain_record(record).items() if key != "source"} for record in records]
    return {
        "command": shlex.join(command),
        "models": dict(models),
        "rows": digest_of(rows),
        "evaluate": config.model_dump(mode="json"),
        "versions": {"tunesmith": __version__, "python": platform.python_version(), **library_versions()},
    }


def library_versions() -> dict[str, str]:
    """Release by name of each library whose arithmetic or tokens decide a figure."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # pragma: no cover - all are required
            continue
    return found
