"""A first recipe for somebody's own data: what its rows are, and settings that suit them. Whoever reads the recipe sees why."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from tunesmith.errors import DataError, UserError
from tunesmith.records import Record, Role

if TYPE_CHECKING:
    from tunesmith.data import SourceReading

__all__ = ["Proposal", "propose"]

Kind = Literal["classification", "text", "conversation"]

_LOOKED_AT = 20_000
"""Rows of a source that decide; the others are counted when the recipe is checked."""
_MEASURED = 1_000
"""Rows whose length in tokens is measured."""
_LENGTHS = (128, 256, 512, 1024)
"""`max_length`, up to the embedded base's context."""
_ROWS_SEEN = 6_500
"""Rows times epochs that the embedded base learned a small task in (docs/design/embedded-base.md)."""
_TOKENS_SEEN = 1_500_000
"""Tokens times epochs that two cores read in about ten minutes."""
_STEPS = 240
_LABEL_WORDS, _LABELS_SHOWN, _MOST_LABELS = 6, 12, 200
_ROWS_PER_LABEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A recipe and what it was made of."""

    recipe: str
    """YAML, with a comment beside what was chosen."""
    data: tuple[str, ...]
    """As it was given."""
    found: tuple[str, ...]
    """For each file its format and the evidence."""
    kind: Kind
    num_rows: int
    """Rows that were looked at and can be learned from."""
    num_bad: int
    """Rows that were looked at and cannot."""

    @property
    def summary(self) -> str:
        """What was found, in one line."""
        told = f"tunesmith data validate {shlex.join(self.data)} tells why"
        bad = f" · {self.num_bad:,} cannot be read: {told}" if self.num_bad else ""
        return f"{self.kind} · {self.num_rows:,} rows can be learned from{bad}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One source, as it stands in the recipe, and its rows as they will be trained on."""

    entry: dict[str, Any]
    found: tuple[str, ...]
    rows: tuple[Record, ...]
    num_bad: int


def propose(data: Sequence[str], *, folder: Path, name: str) -> Proposal:
    """Look at data and write a recipe that tunes the embedded base on it.

    Args:
        data: files, folders, patterns or URLs, as a recipe's `data.sources[].path`, but counted from the current folder.
        folder: where the recipe will lie.
        name: of the model.

    Raises:
        NotFound: no such file.
        DataError: a file's rows are in no known format, or none of them can be learned from.
    """
    sources = [_look_at(path, folder=folder) for path in data]
    rows = [row for source in sources for row in source.rows]
    if not rows:
        raise DataError(
            f"no row of {', '.join(data)} can be learned from. `tunesmith data validate` tells what is wrong with each"
        )
    kind = _kind(rows)
    return Proposal(
        data=tuple(data),
        recipe=_recipe(name, sources=sources, rows=rows, kind=kind),
        found=tuple(line for source in sources for line in source.found),
        kind=kind,
        num_rows=len(rows),
        num_bad=sum(source.num_bad for source in sources),
    )


def _look_at(path: str, *, folder: Path) -> _Source:
    from tunesmith.data import SourceConfig, read
    from tunesmith.data.fields import text_and_label

    here = Path.cwd()
    choices: dict[str, Any] = {}
    reading = read(SourceConfig(path=path), folder=here)
    keys = {text_and_label(told) for told in reading.formats.values()}
    if len(keys) == 1 and (both := keys.pop()):  # the label is to be the answer
        labels = {row.label for row in _first(reading)[0] if row.label}
        choices = {"map": {"question": both[0], "answer": both[1]}, "instruction": _instruction(labels)}
        reading = read(SourceConfig(path=path, **choices), folder=here)
    rows, num_bad = _first(reading)
    return _Source(
        entry={"path": _seen_from(folder, path), **choices},
        found=tuple(f"{file}: {told}" for file, told in reading.formats.items()),
        rows=tuple(rows),
        num_bad=num_bad,
    )


def _seen_from(folder: Path, path: str) -> str:
    """A path that counts from the current folder, as a recipe in another one writes it; whole paths and URLs stay as they are."""
    if "://" in path or path.startswith("~") or Path(path).is_absolute():
        return path
    return Path(os.path.relpath(Path.cwd() / path, folder.resolve())).as_posix()


def _first(reading: SourceReading) -> tuple[list[Record], int]:
    seen = list(islice(reading.rows, _LOOKED_AT))
    rows = [row for row in seen if isinstance(row, Record)]
    return rows, len(seen) - len(rows)


def _instruction(labels: set[str]) -> str:
    if 2 <= len(labels) <= _LABELS_SHOWN and all(_is_label(label) for label in labels):
        return f"Which of these fits: {', '.join(sorted(labels))}?"
    return "Which label fits?"


def _is_label(text: str) -> bool:
    return len(text.split()) <= _LABEL_WORDS and "\n" not in text


def _kind(rows: Sequence[Record]) -> Kind:
    answers = [row.messages[-1].content for row in rows if row.messages and row.messages[-1].role is Role.ASSISTANT]
    if len(answers) < len(rows) / 2:
        return "text"
    different = set(answers)
    few = 2 <= len(different) <= min(_MOST_LABELS, len(answers) // _ROWS_PER_LABEL)
    return "classification" if few and all(map(_is_label, different)) else "conversation"


def _recipe(name: str, *, sources: Sequence[_Source], rows: Sequence[Record], kind: Kind) -> str:
    lengths = _lengths(rows)
    longest, total = max(lengths), round(sum(lengths) / len(lengths) * len(rows))
    max_length = next((size for size in _LENGTHS if size >= longest), _LENGTHS[-1])
    epochs = _epochs(len(rows), num_tokens=total, kind=kind)
    batch = _power_of_two(total * epochs / _STEPS, least=max(512, max_length), most=4096)
    data: dict[str, Any] = {"sources": [source.entry for source in sources], "split": {"validation": 0.1, "test": 0.1}}
    if longest > max_length:
        data["overlong"] = "split" if kind == "text" else "left"
    train: dict[str, Any] = {"method": "full", "epochs": epochs, "learning_rate": 1e-3}
    if kind == "classification":
        train["optimiser"] = {"dropout": 0.1}
    train |= {"batch_tokens": batch, "max_length": max_length}
    settings = {"data": data, "train": train, "evaluate": _evaluate(kind), "promote": "if_better"}
    bad = sum(source.num_bad for source in sources)
    seen = f"{len(rows):,} rows" + (f" ({bad:,} more cannot be read)" if bad else "")
    return (
        f"# {_WHAT[kind]} {seen}, about {total:,} tokens, the longest row {longest:,}.\n"
        f"# Every key, and what else there is: docs/recipe.md. What would be trained, before it is: tunesmith check\n"
        + _yaml({"name": name, "base": "tunesmith/base"})
        + "\n"
        + "\n".join(_noted(_yaml({key: value})) for key, value in settings.items())
    )


_WHAT: dict[Kind, str] = {
    "classification": "Gives each text one of few labels, learned from",
    "text": "Goes on with texts of this kind, learned from",
    "conversation": "Answers as these conversations do, learned from",
}

_NOTES = {
    "split:": "like rows stay on one side, so that no test question was trained on",
    "method:": "every weight; `lora` trains adapters instead, which suit larger bases",
    "epochs:": "passes over the training rows; the best measurement among them is kept",
    "overlong:": "what becomes of rows that are longer than max_length",
    "dropout:": "few rows are soon known by heart",
}


def _noted(part: str) -> str:
    """With a comment where a choice was made."""
    lines = part.splitlines()
    noted = [f"{line} # {note}" if (note := _NOTES.get(line.strip().split(" ")[0])) else line for line in lines]
    return "\n".join(noted) + "\n"


def _evaluate(kind: Kind) -> dict[str, Any]:
    if kind == "classification":
        return {"metrics": ["perplexity", "classification"], "max_new_tokens": 24}
    return {"metrics": ["perplexity"] if kind == "text" else ["perplexity", "rouge", "bleu"]}


def _lengths(rows: Sequence[Record]) -> list[int]:
    """Tokens of rows spread over all, as the embedded base reads them."""
    from tunesmith.data.chat import ChatFormat
    from tunesmith.data.pack import encode
    from tunesmith.model.base import EMBEDDED, open_base

    stride = max(1, len(rows) // _MEASURED)
    encoded = encode(
        list(rows[::stride]), chat=ChatFormat.load(open_base(EMBEDDED, folder=Path(), cache=Path()).path), max_length=1 << 30
    )
    lengths = [len(sequence.tokens) for sequence in encoded.sequences]
    if not lengths:
        raise UserError("no row has an answer that could be learned")
    return lengths


def _epochs(num_rows: int, *, num_tokens: int, kind: Kind) -> float:
    """So many that a small task is learned, and no more than about ten minutes' worth on two cores."""
    wanted = min(15, max(2 if kind == "conversation" else 3, round(_ROWS_SEEN / num_rows)))
    return round(max(0.1, min(wanted, _TOKENS_SEEN / num_tokens)), 1)


def _power_of_two(wanted: float, *, least: int, most: int) -> int:
    size = least
    while size * 2 <= min(wanted, most):
        size *= 2
    return size


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)
