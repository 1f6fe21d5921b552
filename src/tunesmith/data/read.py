"""Files to records: every row of a source becomes a `Record` or a `Dropped` with its file, line and reason.

Rows are read one by one and only counted ones are held, so a source may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tunesmith.data.config import DataConfig, SourceConfig
from tunesmith.data.files import BadRow, File, RawRow, examine, find_files, find_parts, shortened
from tunesmith.data.files.find import SOURCE_KEY
from tunesmith.data.files.rows import SAVE_OR_NAME
from tunesmith.data.formats import Content, Converted, Format, detect, is_own
from tunesmith.data.rows import source_of
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Message, Record, Role, Source
from tunesmith.store.digest import digest_of, digest_of_stream

__all__ = ["EMPTY_FILE", "NOT_WANTED", "SourceReading", "content_digest", "read", "source_digests"]

NOT_WANTED = "not_wanted"
"""Reason of a row that the source's `where` does not ask for: a choice, and no fault."""

EMPTY_FILE = "empty_file"
"""Reason of a file of a folder or archive in which there is no row, so that nothing is lost."""

_LOOKED_AT = 200
_TYPES = {list: "a list", dict: "an object", str: "text", float: "a fraction"}


class _NothingIn(DataError):
    """A file that can be read and holds no row, or none that is asked for."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A file whose format is known."""

    file: File
    format: Format
    told: str = ""
    """What is odd about its mapping."""

    @property
    def name(self) -> str:
        return self.file.part.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReading:
    """A source whose files were found and whose formats are known. `rows` reads it, anew each time."""

    source: SourceConfig
    files: tuple[_Known, ...]
    number: int = 0
    """Of the source in its recipe, which every record bears as its `origin`."""
    refused: tuple[Dropped, ...] = ()
    """Files of a folder or archive of which no row is read, each with its reason."""
    skipped: tuple[str, ...] = ()
    """Files of a folder or archive that are of no kind read here."""

    @property
    def formats(self) -> Mapping[str, str]:
        """For each file its format and the evidence, such as `messages (role/content in 200 of 200 rows)`."""
        return {known.name: "; ".join(filter(None, (str(known.format), known.told, known.file.told))) for known in self.files}

    @property
    def unread(self) -> Mapping[str, str]:
        """Files that cannot be read, each with why: nobody knows how many rows they hold."""
        lost = (row for row in self.refused if row.reason not in {EMPTY_FILE, NOT_WANTED})
        return {row.source.path: row.detail.removeprefix(f"{row.source.path}: ") for row in lost}

    @property
    def rows(self) -> Iterator[Record | Dropped]:
        """Every row in order, in constant memory. `SourceConfig.limit` is not applied here: it samples cleaned rows."""
        yield from self.refused
        for known in self.files:
            for raw in known.file.rows:
                yield from _records(raw, known=known, source=self.source, number=self.number)


def read(source: SourceConfig, *, folder: Path, number: int = 0, key: str = SOURCE_KEY) -> SourceReading:
    """Find a source's files and detect their formats from their first 200 rows.

    Args:
        source: what the recipe says.
        folder: the recipe's folder, to which paths are relative.
        number: of the source in the recipe.
        key: where the recipe names the files, for messages.

    Raises:
        NotFound: no such file, or none matches the pattern.
        DataError: a file is empty, unreadable or in no known format; in a folder or archive it is `refused` instead.
        MissingExtra: a file's kind needs a package that is not installed.
    """
    found = find_parts(source.path, folder=folder, key=key)
    is_loose = len(found.parts) + len(found.refused) > 1 and not any(sign in source.path for sign in "*?[")
    files: list[_Known] = []
    refused = list(found.refused)
    for part in found.parts:
        try:
            files.append(_known(examine(part, encoding=source.encoding), source=source, key=key))
        except DataError as error:
            if not is_loose:
                raise
            reason = error.reason if isinstance(error, _NothingIn) else "unreadable_file"
            refused.append(Dropped(source=Source(path=part.name, line=1), reason=reason, detail=str(error)))
    if not files:
        raise DataError("\n".join(f"{row.source.path}: {row.detail}" for row in refused[:10]))
    return SourceReading(source=source, files=tuple(files), number=number, refused=tuple(refused), skipped=found.skipped)


def _known(file: File, *, source: SourceConfig, key: str) -> _Known:
    name = file.part.name
    rows = list(islice(file.rows, _LOOKED_AT))
    if not rows:
        told = f"{name} is empty ({key}: {source.path!r}). Remove the source or give it rows."
        raise _NothingIn(told, reason=EMPTY_FILE)
    wanted = [row.content for row in rows if _is_wanted(row.content, source=source)]
    if source.where and all(isinstance(content, BadRow) for content in wanted):  # what is asked for may stand further down
        further = (row.content for row in file.rows if not isinstance(row.content, BadRow))
        wanted = list(islice((content for content in further if _is_wanted(content, source=source)), _LOOKED_AT))
        if not wanted:
            told = f"{name}: no row is what data.sources[].where asks for: {_asked_for(source)}"
            raise _NothingIn(told, reason=NOT_WANTED)
    contents = [_mapped(content, source=source) for content in wanted if not isinstance(content, BadRow)]
    if not contents:
        first = "\n".join(f"  {name}:{row.line}  {row.content}" for row in rows[:3])
        raise DataError(f"{name}: none of its first {len(rows)} rows can be read ({key}: {source.path!r}).\n{first}")
    told = _mistaken(wanted, source=source)
    try:
        found = detect(contents, wanted=source.format, path=name, roles=source.roles)
    except DataError as error:
        if told:
            raise DataError(f"{name}: no row can be read as data.sources[].map or --map says: {told}") from error
        raise
    return _Known(file=file, format=found, told="; ".join(filter(None, (told, _left_out(contents)))))


def _left_out(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which keys beside the content hold in these rows what nothing here can use, such as a list of labels; empty if none does."""
    found = []
    for key, usable in (
        ("label", str | int | float),
        ("domain", str | int),
        ("licence", str | int),
        ("group", str | int),
        ("tags", dict),
        ("system", str),
        ("system_prompt", str),
    ):
        strange = [row[key] for row in rows if row.get(key) is not None and not isinstance(row[key], usable)]
        if strange:
            found.append(
                f"`{key}` is {_TYPES.get(type(strange[0]), 'another kind')} in {len(strange):,} of {len(rows):,} rows and is left out"
            )
    return "; ".join(found)


def _mistaken(rows: Sequence[Mapping[str, Any] | BadRow], *, source: SourceConfig) -> str:
    """Which keys of a source's mapping the first rows of a file have not, and which they have; empty if they have them all."""
    keys = dict.fromkeys(key for row in rows if not isinstance(row, BadRow) for key in row)
    lost = [f"`{key}`" for key in source.map.values() if key.strip().lower() not in keys]
    if not lost:
        return ""
    shown = ", ".join([*keys][:20]) + (", …" if len(keys) > 20 else "")
    what = "is no key" if len(lost) == 1 else "are no keys"
    place = "the file; it has" if len(rows) < _LOOKED_AT else f"its first {len(rows)} rows; they have"
    return f"{', '.join(lost)} {what} of {place} {shown}"


def source_digests(config: DataConfig, *, folder: Path) -> dict[str, str]:
    """Hash every file that a data configuration names: equal digests mean equal rows.

    Raises:
        NotFound: no such file, or none matches a pattern.
    """
    digests = {}
    for source in config.sources:
        files, _ = find_files(source.path, folder=folder)
        for name, opener in files:
            try:
                with opener() as file:
                    digests[name] = digest_of_stream(file)
            except OSError:  # a link that leads nowhere, a file that is closed to us: reading says so
                digests[name] = ""
    return digests


def content_digest(content: Content, *, rejected: Sequence[Message] = (), label: str | None = None, tools: str = "") -> str:
    """The id of a record: the hash of its roles, contents and weights, or of its text, and of what is learned beside them."""
    plain: Any = {"text": content} if isinstance(content, str) else _turns(content)
    more = {"rejected": _turns(rejected), "label": label, "tools": tools}
    more = {key: value for key, value in more.items() if value}
    return digest_of({"content": plain} | more if more else plain)


def _turns(messages: Sequence[Message]) -> list[list[Any]]:
    return [[message.role.value, message.content, message.weight] for message in messages]


def _mapped(row: dict[str, Any], *, source: SourceConfig) -> dict[str, Any]:
    """A row under the names that the source's mapping gives; what is not mapped is left out, but for labels."""
    if not source.map:
        return row
    labels = {"domain", "group", "licence", "tags", (source.group_by or "").strip().lower()}
    found = {name: row.get(key.strip().lower()) for name, key in source.map.items()}
    return {key: row[key] for key in labels & row.keys()} | {name: value for name, value in found.items() if value is not None}


def _is_wanted(row: object, *, source: SourceConfig) -> bool:
    """Whether a row has the values that the source's `where` asks for. What cannot be read is not left out in silence."""
    if not source.where or not isinstance(row, Mapping):
        return True
    asked = {key: values if isinstance(values, tuple) else (values,) for key, values in source.where.items()}
    return all(_spelled(row.get(key.strip().lower())) in map(_spelled, values) for key, values in asked.items())


def _spelled(value: object) -> str | None:
    """A plain value as YAML and CSV both write it: files of the second kind hold only strings."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def _asked_for(source: SourceConfig) -> str:
    return ", ".join(f"{key} {_listed(value)}" for key, value in source.where.items())


def _listed(value: object) -> str:
    return " or ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _records(raw: RawRow, *, known: _Known, source: SourceConfig, number: int) -> Iterator[Record | Dropped]:
    """What one raw row holds: a record, or several, or reasons."""
    place = Source(path=known.name, line=raw.line)
    if isinstance(raw.content, BadRow):
        yield _dropped(raw.content, raw=raw, place=place)
        return
    if not _is_wanted(raw.content, source=source):
        yield Dropped(source=place, reason=NOT_WANTED, detail=f"it is not what `where` asks for: {_asked_for(source)}")
        return
    for held in known.format.items(_mapped(raw.content, source=source)):
        row: Record | Dropped
        try:
            if isinstance(held.found, BadRow):
                raise held.found
            row = _build(held.row, _instructed(held.found, source=source), place=place, source=source, number=number)
        except BadRow as bad:
            row = _dropped(bad, raw=raw, place=place)
        yield row


def _instructed(found: Converted, *, source: SourceConfig) -> Converted:
    """What a row holds, its first question under the source's instruction. A text asks nothing and stays as it is."""
    if not source.instruction or isinstance(found.content, str):
        return found
    messages = list(found.content)
    for at, message in enumerate(messages):
        if message.role is Role.USER:
            messages[at] = replace(message, content=f"{source.instruction}\n\n{message.content}")
            break
    return found._replace(content=tuple(messages))


def _dropped(bad: BadRow, *, raw: RawRow, place: Source) -> Dropped:
    # Lone surrogates cannot be written as UTF-8, and a dropped row must be.
    return Dropped(source=place, reason=bad.reason, detail=bad.detail, raw=shortened(raw.raw, length=2000))


def _build(row: Mapping[str, Any], found: Converted, *, place: Source, source: SourceConfig, number: int) -> Record:
    tags = row.get("tags")
    tags = {key: str(value) for key, value in tags.items() if _is_tag(value)} if isinstance(tags, dict) else {}
    domain, licence, group = _own(row, "domain", source.domain), _own(row, "licence", source.licence), _group(row, source=source)
    for label in (domain, licence, group or "", found.label or "", found.tools, *chain(*tags.items())):
        _refuse_surrogates(label)
    parents = row.get("parents") if is_own(row) else None
    content = found.content
    return Record(
        id=_identity(found),
        source=source_of(row["source"]) if is_own(row) else place,
        messages=() if isinstance(content, str) else content,
        rejected=found.rejected,
        text=content if isinstance(content, str) else None,
        label=found.label,
        tools=found.tools,
        instruction=_instruction(row, content, source=source),
        domain=domain,
        group=group,
        origin=number,
        licence=licence,
        parents=tuple(parent for parent in parents if isinstance(parent, str)) if isinstance(parents, list) else (),
        tags=tags,
    )


def _is_tag(value: object) -> bool:
    """Words and numbers, such as a row's loss."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _identity(found: Converted) -> str:
    try:
        return content_digest(found.content, rejected=found.rejected, label=found.label, tools=found.tools)
    except TypeError:  # the only content without a digest is text that is not Unicode
        content = found.content
        for text in [content] if isinstance(content, str) else [message.content for message in content + found.rejected]:
            _refuse_surrogates(text)
        raise


def _group(row: Mapping[str, Any], *, source: SourceConfig) -> str | None:
    """The group under `group_by`, which must then be there, or else under `group`."""
    value = row.get(source.group_by.strip().lower() if source.group_by else "group")
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    if source.group_by:
        raise BadRow("missing_field", f"group_by names `{source.group_by}`; here it is missing, empty or neither text nor number")
    return None


def _instruction(row: Mapping[str, Any], content: Content, *, source: SourceConfig) -> str:
    """What the first question begins with beside what it asks."""
    if isinstance(content, str):
        return ""
    return source.instruction or (_own(row, "instruction", "") if is_own(row) else "")


def _own(row: Mapping[str, Any], key: str, default: str) -> str:
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else default


def _refuse_surrogates(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        is_byte = 0xDC80 <= code <= 0xDCFF
        what = f"byte 0x{code - 0xDC00:02x} is not UTF-8" if is_byte else f"U+{code:04X} is half a character"
        mend = SAVE_OR_NAME if is_byte else "Save the file as UTF-8."
        around = shortened(text[max(0, error.start - 30) :])
        raise BadRow("encoding", f"{what}, at position {error.start + 1} ({around}). {mend}") from error
