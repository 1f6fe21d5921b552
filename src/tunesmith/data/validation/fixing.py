"""The corrected copy: sound rows as they stand, mended rows, and beside it what was changed and what had to be left out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

from tunesmith.data.files.strict_json import written_json
from tunesmith.data.validation.finding import Finding, Severity
from tunesmith.data.validation.lines import Line, exact_row, mended_line
from tunesmith.data.validation.mending import Change, mend_row
from tunesmith.data.validation.row import Layout
from tunesmith.data.writing import RowWriter, open_outputs
from tunesmith.records import Source

__all__ = ["Fixer", "outputs_of"]

_ROUNDS = 4
"""A mend may bring to light what it hid (a role that was unknown stands in the wrong place): so often a row is looked at again."""
_PACKED = (".gz", ".zst")
_MAX_SHOWN = 2000
"""Of a row that can be read, readers of files other than JSON lines keep so many characters as its text; then the row itself is written."""


class _Check(Protocol):
    def __call__(self, row: dict[str, Any], *, layout: Layout, source: Source) -> list[Finding]: ...


class Fixer:
    """Writes three files, which appear together when the stack is left without an error.

    Args:
        out: the corrected copy. For `rows.jsonl` the others are `rows.changes.jsonl` and `rows.rejected.jsonl`.
        stack: keeps the files open.
        check: finds what is wrong with a row.
        control: the pattern of control tokens.
    """

    def __init__(self, out: Path, *, stack: ExitStack, check: _Check, control: re.Pattern[str]) -> None:
        self.out = out
        _, self.changes, self.rejected = outputs_of(out)
        files = stack.enter_context(open_outputs(out, self.changes, self.rejected))
        self._rows, self._changes, self._rejected = map(RowWriter, files)
        self._check = check
        self._control = control
        self.num_changed = 0
        """Rows and lines with a change."""

    @property
    def num_written(self) -> int:
        """Rows of the corrected copy."""
        return self._rows.num_rows

    @property
    def num_rejected(self) -> int:
        """Rows left out of it."""
        return self._rejected.num_rows

    def take(self, line: Line, findings: list[Finding], *, layout: Layout, source: Source) -> None:
        """Write one line's row to where it belongs."""
        changes = [Change(found.code, "", found.value or "", None) for found in line.found if found.code in _LINE_MENDS]
        if line.row is None and not line.raw and len(changes) == len(line.found):  # a blank line; rows without text go on
            self._record(changes, source=source)
            return
        row = None
        if any(finding.is_fixable for finding in findings):
            row, more, findings = self._mended(line, findings, layout=layout, source=source)
            changes += more
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        if errors:
            self._rejected.write(_rejection(line, errors, source=source))
            return
        if row is not None:
            self._rows.write(written_json(row).encode())
        else:
            self._rows.write(line.raw if line.is_json else dict(line.row or {}))
        self._record(changes, source=source)

    def _mended(
        self, line: Line, findings: list[Finding], *, layout: Layout, source: Source
    ) -> tuple[dict[str, Any] | None, list[Change], list[Finding]]:
        """Mend a row as far as it goes: the row if it was changed, the changes, and what is still wrong with it."""
        changes: list[Change] = []
        if line.row is None:
            mended = mended_line(line)
            if mended is None:
                return None, [], findings
            row, slips = mended
            code = next(finding.code for finding in findings if finding.is_fixable and finding.code not in _LINE_MENDS)
            changes.append(Change(code, "", line.text, deepcopy(row)))
            changes += (Change(code, f"column {slip.column}", slip.before, slip.after) for slip in slips)
            findings = self._check(row, layout=layout, source=source)
        else:
            row = exact_row(line)
        for _ in range(_ROUNDS):
            codes = {finding.code for finding in findings if finding.is_fixable}
            done = mend_row(row, codes=codes, control=self._control)
            if not done:
                break
            changes += done
            findings = self._check(row, layout=layout, source=source)
        return (row if changes else None), changes, findings

    def _record(self, changes: Sequence[Change], *, source: Source) -> None:
        self.num_changed += bool(changes)
        for change in changes:
            plain = {"source": str(source), "line": source.line, "code": change.code, "at": change.at}
            self._changes.write(plain | {"before": change.before, "after": change.after})


_LINE_MENDS = frozenset({"byte_order_mark", "blank_line"})
"""Mended by writing the row without them."""


def outputs_of(out: Path) -> tuple[Path, Path, Path]:
    """The corrected copy, and the changes and rejected rows beside it: `rows.jsonl.gz`, `rows.changes.jsonl`, `rows.rejected.jsonl`."""
    name = out.name
    for suffix in (*_PACKED, ".jsonl", ".ndjson", ".json"):
        name = name.removesuffix(suffix)
    name = name or out.name
    return out, out.with_name(f"{name}.changes.jsonl"), out.with_name(f"{name}.rejected.jsonl")


def _rejection(line: Line, errors: Sequence[Finding], *, source: Source) -> dict[str, Any]:
    """A row that was left out, whole, with every reason."""
    is_cut = line.row is not None and not line.is_json and len(line.raw) >= _MAX_SHOWN  # by the reader of its kind of file
    return {
        "source": str(source),
        "reason": errors[0].code,
        "detail": errors[0].detail,
        "findings": [error.as_json() for error in errors],
        "raw": json.dumps(line.row, ensure_ascii=False, default=str) if is_cut else line.text,
    }
