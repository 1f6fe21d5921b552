"""Everything that is stored of one version, in one place: what `models show` prints and a card is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data import load_snapshot, load_split
from tunesmith.errors import BrokenArtefact, ModelError, NotFound
from tunesmith.pipeline.evaluating import stored_report
from tunesmith.pipeline.lineage import stored_recipe
from tunesmith.pipeline.proving import Sheet, stored_sheet
from tunesmith.pipeline.reproduction import Reproduction, stored_reproduction
from tunesmith.pipeline.versions import ADAPTER_CONFIG, MODEL_FACTS, base_of
from tunesmith.records import ModelVersion, Record, Report, Snapshot
from tunesmith.store import Store, files_of

__all__ = ["Rows", "VersionFacts", "facts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows that a version was made with and judged on."""

    snapshot: Snapshot
    licences: Mapping[str, Mapping[str, int]]
    """source -> licence ("" where none is named) -> rows."""
    kinds: Mapping[str, int]
    """Training rows by what they are: `conversation`, `preference pair`, `plain text`."""
    domains: Mapping[str, int]
    """Training rows by domain."""
    sample: tuple[Record, ...]
    """Some training rows, evenly drawn."""
    findings: Mapping[str, Mapping[str, int]]
    """cleaning step -> kind -> how often it was found; empty where nothing was, or what cleaning did is not kept on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """What is stored of a version. What is None was never made, or is gone from the store."""

    version: ModelVersion
    training: Mapping[str, Any]
    """As kept beside the weights."""
    is_adapter: bool
    recipe: Mapping[str, Any] | None
    rows: Rows | None
    report: Report | None
    sheet: Sheet | None
    reproduction: Reproduction | None
    base_licence: str | None
    """As the base's own card names it."""

    @property
    def base_name(self) -> str:
        """As it may be shown: a folder of this machine by its name alone."""
        name = str(self.training["base"])
        return Path(name).name if name.startswith(("/", "~", ".")) else name

    @property
    def has_base(self) -> bool:
        return self.training["base_files"] is not None

    @property
    def rows_in_words(self) -> str:
        """Rows read, kept and held out."""
        if self.rows is None:
            return ""
        snapshot = self.rows.snapshot
        splits = " · ".join(f"{split} {count:,}" for split, count in snapshot.splits.items())
        return f"{snapshot.num_read:,} rows read · {splits} · {sum(snapshot.dropped.values()):,} left out"

    @property
    def training_in_words(self) -> str:
        """Method, steps, tokens, rate, seed."""
        facts, train = self.training, self.training["train"]
        method = train["method"] + (f" of rank {train['lora']['rank']}" if "lora" in train else ", every weight")
        tokens = sum(passed["tokens"] for passed in facts.get("sources", {}).values())
        read = f" · {tokens:,} tokens read" if tokens else ""
        rate = f" · peak rate {facts['learning_rate']:.3g}" if "learning_rate" in facts else ""
        return f"{method} · {facts['num_steps']:,} steps{read}{rate} · seed {facts['seed']}"

    def as_json(self) -> dict[str, Any]:
        """Plain values, beside those of the version itself."""
        snapshot = self.rows.snapshot if self.rows else None
        return {
            "training": {key: self.training[key] for key in _TRAINING if key in self.training},
            "recipe": self.recipe,
            "data": {
                "num_read": snapshot.num_read,
                "splits": dict(snapshot.splits),
                "dropped": dict(snapshot.dropped),
                "licences": {source: dict(found) for source, found in self.rows.licences.items()},
                "domains": dict(self.rows.domains),
            }
            if snapshot and self.rows
            else None,
            "verdict": self.report.verdict if self.report else None,
            "proofs": self.sheet.as_json() if self.sheet else None,
            "reproduction": self.reproduction.as_json() if self.reproduction else None,
            "base_licence": self.base_licence,
        }


_TRAINING = (
    "base",
    "train",
    "seed",
    "learning_rate",
    "is_compiled",
    "best_step",
    "num_steps",
    "stopped_early",
    "warnings",
    "sources",
)
_NUM_SAMPLE = 200


def facts_of(version: ModelVersion, *, store: Store) -> VersionFacts:
    """Gather what is stored of a version.

    Raises:
        NotFound: its model is gone.
        BrokenArtefact: its model was altered.
    """
    artefact = files_of(version, store=store)
    training = orjson.loads((artefact.path / MODEL_FACTS).read_bytes())
    return VersionFacts(
        version=version,
        training=training,
        is_adapter=(artefact.path / ADAPTER_CONFIG).is_file(),
        recipe=_kept(lambda: stored_recipe(version, store=store)),
        rows=_kept(lambda: _rows(training["snapshot"], store=store)),
        report=_kept(lambda: stored_report(version, store=store)),
        sheet=stored_sheet(version, store=store),
        reproduction=stored_reproduction(version, store=store),
        base_licence=_base_licence(training),
    )


def _kept(read: Any) -> Any:
    """What is stored; None where it is gone or broken, of which `doctor` speaks."""
    try:
        return read()
    except (NotFound, BrokenArtefact):
        return None


def _rows(digest: str, *, store: Store) -> Rows:
    snapshot = load_snapshot(store, digest)
    train = load_split(store, snapshot, split="train")
    licences: dict[str, Counter[str]] = {}
    for split in snapshot.splits:
        for record in train if split == "train" else load_split(store, snapshot, split=split):
            licences.setdefault(record.source.path, Counter())[record.licence.strip()] += 1
    return Rows(
        snapshot=snapshot,
        licences=licences,
        kinds=Counter(map(_kind, train)),
        domains=Counter(record.domain for record in train if record.domain),
        sample=tuple(train[:: max(len(train) // _NUM_SAMPLE, 1)][:_NUM_SAMPLE]),
        findings=_findings(store.root / "cleaning" / digest / "account.json"),
    )


def _kind(record: Record) -> str:
    return "plain text" if record.text is not None else "preference pair" if record.rejected else "conversation"


def _findings(account: Path) -> dict[str, dict[str, int]]:
    """What cleaning found, by step; that account stays on the machine, for beside it lies what was taken out."""
    try:
        steps = orjson.loads(account.read_bytes())
        return {step["step"]: dict(step["found"]) for step in steps if step["found"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _base_licence(training: Mapping[str, Any]) -> str | None:
    """`license` in the front matter of the base's README.md; None where there is none, or the base is gone."""
    import yaml

    try:
        base = base_of(dict(training))
        text = (base / "README.md").read_text(encoding="utf-8") if base else ""
    except (NotFound, ModelError, OSError, ValueError):
        return None
    _, mark, rest = text.partition("---\n")
    if not mark or text.find("---") != 0:
        return None
    try:
        front = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return None
    name = front.get("license") if isinstance(front, dict) else None
    return name if isinstance(name, str) and name.strip() else None
