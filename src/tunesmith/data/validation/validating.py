"""Whole files: check every row, count, mend on demand, and judge whether they pass the gate.

Rows stream through, so memory grows only with what is kept of the findings, with how many lengths differ, and by some hundred bytes
for each `id` that rows bear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.config import FormatName
from tunesmith.data.files import File
from tunesmith.data.formats import detect
from tunesmith.data.percent import percent
from tunesmith.data.validation.codes import GuideName
from tunesmith.data.validation.finding import Finding, Found, Severity, judged
from tunesmith.data.validation.fixing import Fixer, outputs_of
from tunesmith.data.validation.lines import Line, files_of, lines_of, mended_line
from tunesmith.data.validation.row import Checked, Layout, check_row
from tunesmith.data.validation.statistics import Statistics
from tunesmith.data.validation.texts import CONTROL_TOKENS, control_pattern
from tunesmith.data.validation.tokens import TokenCheck
from tunesmith.data.writing import check_outputs
from tunesmith.errors import DataError
from tunesmith.records import Source

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat

__all__ = ["FileAccount", "Fixed", "OnProgress", "Rules", "Validation", "validate"]

OnProgress = Callable[[int, int | None], None]
"""Called with how many rows were read, and how many there seem to be (None: nobody knows)."""

_LOOKED_AT = 200
_CHUNK = 1024
_KEPT = 100
"""Findings of each code that are kept unless all are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAccount:
    """One file: what it holds, and how much of it is bad."""

    name: str
    format: str
    num_rows: int
    num_bad: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What `--fix` wrote: the corrected copy, what was changed in it, and the rows that had to be left out."""

    out: Path
    changes: Path
    rejected: Path
    num_written: int
    num_changed: int
    num_rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what rows are judged, and how much is told."""

    layout: FormatName = "auto"
    """Layout of the rows; `auto` looks at the first 200 of each file."""
    guide: GuideName | None = None
    """Whose rules hold besides ours: what `openai` or `mistral` refuses is then an error."""
    max_tokens: int = 4096
    """Rows of more tokens are told."""
    max_bad_share: float = 0.01
    """Share of the rows, from 0 to 1, that may be bad before the files do not pass."""
    keeps_all: bool = False
    """Keep every finding, and not only the first hundred of each code."""


@dataclass(slots=True, kw_only=True)
class Validation:
    """What was found in some files."""

    rules: Rules
    files: list[FileAccount] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Files of a folder or archive that are of no kind read here."""
    num_rows: int = 0
    num_bad: int = 0
    """Rows with an error."""
    num_doubtful: int = 0
    """Rows with warnings alone."""
    counts: dict[Severity, Counter[str]] = field(default_factory=lambda: {severity: Counter() for severity in Severity})
    """How often each code was found."""
    findings: list[Finding] = field(default_factory=list)
    """The first of each code, in order."""
    num_left_out: int = 0
    """Findings that are counted and not kept."""
    statistics: Statistics = field(default_factory=Statistics)
    num_over_limit: int | None = None
    """Rows of more than `max_tokens` tokens; None without a tokenizer."""
    fixed: Fixed | None = None

    @property
    def bad_share(self) -> float:
        """The share of rows that cannot be used: with a corrected copy, that are not in it."""
        num_bad = self.fixed.num_rejected if self.fixed else self.num_bad
        return num_bad / self.num_rows if self.num_rows else 0.0

    @property
    def passes(self) -> bool:
        """Whether the gate lets them pass. Files of which no row is left never do."""
        num_bad = self.fixed.num_rejected if self.fixed else self.num_bad
        return self.num_rows > num_bad and self.bad_share <= self.rules.max_bad_share

    @property
    def refusal(self) -> str:
        """What to tell where the gate refuses."""
        num_bad = self.fixed.num_rejected if self.fixed else self.num_bad
        shares = f"{percent(self.bad_share)}, the gate is {100 * self.rules.max_bad_share:g} %"
        what = "had to be left out" if self.fixed else "are bad"
        return f"Refused: {num_bad:,} of {self.num_rows:,} rows {what} ({shares}). Mend them, or raise --max-bad-share."

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        fixed = self.fixed
        return {
            "files": [
                {"path": file.name, "format": file.format, "num_rows": file.num_rows, "num_bad": file.num_bad}
                for file in self.files
            ],
            "skipped": self.skipped,
            "num_rows": self.num_rows,
            "num_bad": self.num_bad,
            "num_doubtful": self.num_doubtful,
            "bad_share": self.bad_share,
            "max_bad_share": self.rules.max_bad_share,
            "passes": self.passes,
            "errors": dict(self.counts[Severity.ERROR].most_common()),
            "warnings": dict(self.counts[Severity.WARNING].most_common()),
            "findings": [finding.as_json() for finding in self.findings],
            "num_findings_left_out": self.num_left_out,
            **self.statistics.as_json(),
            "max_tokens": self.rules.max_tokens,
            "num_over_token_limit": self.num_over_limit,
            "fix": None
            if fixed is None
            else {
                "out": str(fixed.out),
                "changes": str(fixed.changes),
                "rejected": str(fixed.rejected),
                "num_written": fixed.num_written,
                "num_changed": fixed.num_changed,
                "num_rejected": fixed.num_rejected,
            },
        }


def validate(
    sources: Sequence[str | Path],
    *,
    rules: Rules,
    chat: ChatFormat | None = None,
    fix: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Validation:
    """Find every error in some files of rows, and write a corrected copy if one is wanted.

    Args:
        sources: files, folders, patterns, archives or URLs, in order.
        rules: by what rows are judged, and how much is told.
        chat: the tokenizer and template that rows are rendered with; without it no token is counted.
        fix: where the corrected copy goes, all files in one, as JSON lines. None: nothing is written.
        on_progress: told how far it is.

    Raises:
        NotFound: a file does not exist.
        DataError: a file as a whole cannot be read.
        UserError: the corrected copy would replace one of the files.
        OutOfSpace: no room for the corrected copy; nothing half-written is kept.
    """
    work = _Work(rules, chat=chat)
    with ExitStack() as stack:
        fixer = None
        if fix is not None:
            check_outputs([("--fix", output) for output in outputs_of(fix)], sources=sources)
            fixer = Fixer(fix, stack=stack, check=work.check, control=work.control)
        files: list[File] = []
        for source in sources:
            there, skipped = files_of(str(source))
            files += there
            work.validation.skipped += skipped
        for file in files:
            work.run(file, fixer=fixer, report=on_progress or (lambda _done, _total: None), is_alone=len(files) == 1)
        if not work.validation.num_rows:
            raise DataError(f"{', '.join(file.part.name for file in files[:10])}: no file has a row. Give them rows.")
    if fixer is not None:
        work.validation.fixed = Fixed(
            out=fixer.out,
            changes=fixer.changes,
            rejected=fixer.rejected,
            num_written=fixer.num_written,
            num_changed=fixer.num_changed,
            num_rejected=fixer.num_rejected,
        )
    return work.validation


class _Work:
    """One validation at work."""

    def __init__(self, rules: Rules, *, chat: ChatFormat | None) -> None:
        self.validation = Validation(rules=rules, num_over_limit=None if chat is None else 0)
        self.control = CONTROL_TOKENS if chat is None else control_pattern(chat.control_tokens)
        self._rules = rules
        self._tokens = None if chat is None else TokenCheck(chat, max_tokens=rules.max_tokens)
        self._names: dict[int, str] = {}
        self._ids: dict[str | int, int] = {}  # the file's number and the line's, in one number: a million ids take 130 MB

    def check(self, row: dict[str, Any], *, layout: Layout, source: Source) -> list[Finding]:
        """Everything found in one row by itself, judged; nothing is counted."""
        checked = check_row(row, layout=layout, control=self.control, wants_content=self._tokens is not None)
        if self._tokens is not None:
            self._tokens.check([checked])
        return [judged(found, source=source, guide=self._rules.guide) for found in checked.found]

    def run(self, file: File, *, fixer: Fixer | None, report: OnProgress, is_alone: bool) -> None:
        """Check one file. One without a row is told, and refused where it is the only one."""
        name = file.part.name
        lines = lines_of(file)
        first = list(islice(lines, _LOOKED_AT))
        if not any(line.raw for line in first):
            if is_alone:
                raise DataError(f"{name} is empty. Give it rows.")
            self.validation.files.append(FileAccount(name=name, format="empty: it has no row", num_rows=0, num_bad=0))
            return
        layout = _layout(first, wanted=self._rules.layout, name=name)
        size = Path(name).stat().st_size if Path(name).is_file() else 0
        rows_before, bad_before = self.validation.num_rows, self.validation.num_bad
        everything = chain(first, lines)
        while chunk := list(islice(everything, _CHUNK)):
            for line, source, findings in self._check_chunk(chunk, layout=layout, name=name):
                self._count(findings)
                if fixer is not None:
                    fixer.take(line, findings, layout=layout, source=source)
            done = self.validation.num_rows
            read = chunk[-1].num_bytes
            report(done, rows_before + round((done - rows_before) * size / read) if read and size else None)
        self.validation.files.append(
            FileAccount(
                name=name,
                format="; ".join(filter(None, (str(layout), file.told))),
                num_rows=self.validation.num_rows - rows_before,
                num_bad=self.validation.num_bad - bad_before,
            )
        )

    def _check_chunk(self, chunk: list[Line], *, layout: Layout, name: str) -> Iterator[tuple[Line, Source, list[Finding]]]:
        """Check the rows of a chunk; those that can be rendered are rendered together."""
        checked: list[Checked] = []
        for line in chunk:
            one = Checked(list(line.found), [], ())
            if line.row is not None:
                one = check_row(line.row, layout=layout, control=self.control, wants_content=self._tokens is not None)
                one.found[:0] = line.found
                one.found.extend(self._repeated_id(line, name=name))
                if one.turns:
                    turns = ((turn.role, turn.content) for turn in one.turns)
                    self.validation.statistics.add(turns, is_conversation=layout.is_conversation or one.turns[0].role != "text")
            checked.append(one)
        if self._tokens is not None:
            self._tokens.check(checked, count_in=self.validation)
        for line, one in zip(chunk, checked, strict=True):
            source = Source(path=name, line=line.number)
            yield line, source, [judged(found, source=source, guide=self._rules.guide) for found in one.found]

    def _repeated_id(self, line: Line, *, name: str) -> Iterator[Found]:
        identity = (line.row or {}).get("id")
        if isinstance(identity, str | int) and not isinstance(identity, bool) and identity != "":
            file = len(self.validation.files)
            self._names[file] = name
            first = self._ids.setdefault(identity, place := file << 40 | line.number)
            if first != place:
                yield Found(
                    "duplicate_id", f"the id stands in {self._names[first >> 40]}:{first & (1 << 40) - 1} too", "id", identity
                )

    def _count(self, findings: list[Finding]) -> None:
        validation = self.validation
        is_blank = any(finding.code == "blank_line" for finding in findings)
        validation.num_rows += not is_blank
        if not findings:
            return
        is_bad = not is_blank and any(finding.severity is Severity.ERROR for finding in findings)
        validation.num_bad += is_bad
        validation.num_doubtful += not is_bad and not is_blank
        for finding in findings:
            counts = validation.counts[finding.severity]
            counts[finding.code] += 1
            if self._rules.keeps_all or counts[finding.code] <= _KEPT:
                validation.findings.append(finding)
            else:
                validation.num_left_out += 1


def _layout(lines: Sequence[Line], *, wanted: FormatName, name: str) -> Layout:
    """The layout of most of the first rows. Rows of no known layout are taken for conversations, and told one by one."""
    meant = [line.row if line.row is not None else (mended_line(line) or ({}, []))[0] for line in lines if line.raw]
    rows = [{key.strip().lower(): value for key, value in row.items()} for row in meant if row]
    if not rows:
        return Layout(None, True)
    try:
        found = detect(rows, wanted=wanted, path=name)
    except DataError:
        if wanted not in {"auto", "messages"}:
            raise
        return Layout(None, True)
    return Layout(found, found.name in {"messages", "sharegpt"})
