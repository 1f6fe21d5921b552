"""The data report that `check` and `run` keep of a recipe: `NAME/data.html` and `data.json` in the workspace's reports.

It is written twice. Before the model is touched: what the rows alone show, so that it is there when a job is refused. After the plan,
or the training: with the token ledger, the mix and the coverage too. The rows are measured once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from tunesmith import __version__
from tunesmith.data import load_split
from tunesmith.pipeline.covering import Coverage
from tunesmith.pipeline.data_given import coverage_section, ledger_section, mixing_section
from tunesmith.pipeline.data_report import DataReport, Measured, Tokens, data_report, read_dropped
from tunesmith.records import Snapshot
from tunesmith.store import Store, digest_of

__all__ = ["KeptReport"]

_MOST_SEARCHED = 20_000
"""Rows in which a run looks for near-duplicates once more, for the page alone: its split has looked for them already. `data report` looks
in ten times as many."""


class KeptReport:
    """A recipe's data report in the workspace.

    Args:
        name: of the recipe.
        snapshot: the rows.
        store: the workspace.
        tokens: how to count tokens.
        settings: what else decides the ledger and the mix, as plain values.
    """

    def __init__(self, name: str, *, snapshot: Snapshot, store: Store, tokens: Tokens, settings: Mapping[str, Any]) -> None:
        self.page = store.reports / name / "data.html"
        self._name = name
        self._snapshot = snapshot
        self._store = store
        self._tokens = tokens
        self._settings = settings
        self._measured: DataReport | None = None

    def begin(self) -> bool:
        """Write what the rows alone show, unless a page of these rows and settings is there, with or without more.

        Returns:
            Whether it was written now.
        """
        if self._is_there(self._facts()):
            return False
        self._write(self._measure(), facts={**self._facts(), "training": None})
        return True

    def complete(
        self, *, ledger: Mapping[str, Any] | None, sources: Mapping[str, Any] | None, cover: Callable[[], Coverage | None]
    ) -> bool:
        """Write the whole page, unless the very same is there.

        Args:
            ledger: of the training rows, as `Ledger.as_json` gives it; None is left out.
            sources: what is read of each source, `Passed` as plain values; None is left out.
            cover: says how well the training rows cover the test rows; not asked where the page is there.

        Returns:
            Whether it was written now.
        """
        facts = {**self._facts(), "training": digest_of([ledger, sources])}
        if self._is_there(facts):
            return False
        coverage, counts = cover(), self._snapshot.splits
        more = (
            ledger_section(ledger) if ledger else None,
            mixing_section(sources) if sources else None,
            coverage_section(coverage.as_json(), num_train=counts["train"], num_test=counts["test"]) if coverage else None,
        )
        measured = self._measure()
        found = (*measured.sections, *(section for section in more if section is not None))
        self._write(replace(measured, sections=found), facts=facts)
        return True

    def _facts(self) -> dict[str, Any]:
        return {
            "tunesmith": __version__,
            "snapshot": self._snapshot.id,
            "tokenizer_digest": self._tokens.digest,
            "settings": digest_of(dict(self._settings)),
        }

    def _is_there(self, facts: Mapping[str, Any]) -> bool:
        if not self.page.is_file():
            return False
        try:
            found = orjson.loads(self.page.with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and all(key in found and found[key] == value for key, value in facts.items())

    def _measure(self) -> DataReport:
        if self._measured is None:
            snapshot, store = self._snapshot, self._store
            splits = {split: load_split(store, snapshot, split=split) for split in snapshot.splits}
            measured = Measured(
                splits={split: rows for split, rows in splits.items() if rows},
                dropped=read_dropped(store.artefacts.get(snapshot.id).path / "dropped.jsonl") or [],
                formats=snapshot.formats,
                num_read=snapshot.num_read,
            )
            self._measured = data_report(self._name, measured, tokens=self._tokens, most_searched=_MOST_SEARCHED)
        return self._measured

    def _write(self, report: DataReport, *, facts: Mapping[str, Any]) -> None:
        replace(report, facts=facts).write(html=self.page, json=self.page.with_suffix(".json"))
