"""Files to records: every row of a source becomes a `Record` or a `Dropped` with its file, line and reason.

Rows are read one by one and only counted ones are held, so a source may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tunesmith.data.config import DataConfig, SourceConfig
from tunesmith.data.files import RawRow, read_rows
from tunesmith.data.formats import BadRow, Content, Format, detect, shortened
from tunesmith.errors import DataError, NotFound
from tunesmith.records import Dropped, Message, Record, Source
from tunesmith.store.digest import digest_of, digest_of_file

__all__ = ["SourceReading", "content_digest", "read", "source_digests"]

_LOOKED_AT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of a source, what messages call it, and its format."""

    path: Path
    name: str
    format: Format


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReading:
    """A source whose files were found and whose formats are known. `rows` reads it, anew each time."""

    source: SourceConfig
    files: tuple[_File, ...]

    @property
    def formats(self) -> Mapping[str, str]:
        """For each file its format and the evidence, such as `messages (role/content in 200 of 200 rows)`."""
        return {file.name: str(file.format) for file in self.files}

    @property
    def rows(self) -> Iterator[Record | Dropped]:
        """Every row in order, in constant memory. `SourceConfig.limit` is not applied here: it samples cleaned rows."""
        for file in self.files:
            for raw in read_rows(file.path, name=file.name):
                yield _record(raw, file=file, source=self.source)


def read(source: SourceConfig, *, folder: Path) -> SourceReading:
    """Find a source's files and detect their formats from their first 200 rows.

    Args:
        source: what the recipe says.
        folder: the recipe's folder, to which paths are relative.

    Raises:
        NotFound: no such file, or none matches the pattern.
        DataError: a file is empty, unreadable or in no known format.
    """
    files = []
    for path, name in _find(source, folder=folder):
        rows = list(islice(read_rows(path, name=name), _LOOKED_AT))
        if not rows:
            raise DataError(f"{name} is empty (data.sources[].path: {source.path!r}). Remove the source or give it rows.")
        contents = [row.content for row in rows if not isinstance(row.content, BadRow)]
        if not contents:
            first = "\n".join(f"  {name}:{row.line}  {row.content}" for row in rows[:3])
            raise DataError(
                f"{name}: none of its first {len(rows)} rows can be read (data.sources[].path: {source.path!r}).\n{first}"
            )
        files.append(_File(path=path, name=name, format=detect(contents, wanted=source.format, path=name)))
    return SourceReading(source=source, files=tuple(files))


def source_digests(config: DataConfig, *, folder: Path) -> dict[str, str]:
    """Hash every file that a data configuration names: equal digests mean equal rows.

    Raises:
        NotFound: no such file, or none matches a pattern.
    """
    found = (entry for source in config.sources for entry in _find(source, folder=folder))
    return {name: digest_of_file(path) for path, name in found}


def content_digest(content: Content, *, rejected: Sequence[Message] = (), label: str | None = None, tools: str = "") -> str:
    """The id of a record: the hash of its roles, contents and weights, or of its text, and of what is learned beside them."""
    plain: Any = {"text": content} if isinstance(content, str) else _turns(content)
    more = {"rejected": _turns(rejected), "label": label, "tools": tools}
    more = {key: value for key, value in more.items() if value}
    return digest_of({"content": plain} | more if more else plain)


def _turns(messages: Sequence[Message]) -> list[list[Any]]:
    return [[message.role.value, message.content, message.weight] for message in messages]


def _find(source: SourceConfig, *, folder: Path) -> list[tuple[Path, str]]:
    """Each file of a source and its name: as the recipe writes it, or below the recipe's folder for a pattern's matches."""
    given = Path(source.path).expanduser()
    path = folder / given
    key = f"data.sources[].path: {source.path!r}"
    if path.is_file():
        # An absolute path says where this machine keeps it; the name alone is the same everywhere.
        return [(path, given.name if given.is_absolute() else given.as_posix())]
    if path.is_dir():
        raise NotFound(f"{path} is a folder ({key}). Name a file, or a pattern such as '{given.as_posix()}/*.jsonl'.")
    is_pattern = any(sign in source.path for sign in "*?[")
    root, pattern = (Path(path.anchor), path.relative_to(path.anchor)) if given.is_absolute() else (folder, given)
    matches = sorted(match for match in root.glob(pattern.as_posix()) if match.is_file()) if is_pattern else []
    if not matches:
        what = "no file matches this pattern" if is_pattern else "no such file"
        raise NotFound(f"{path}: {what} ({key}, relative to {folder}).")
    return [(match, _relative(match, folder=folder)) for match in matches]


def _relative(path: Path, *, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _record(raw: RawRow, *, file: _File, source: SourceConfig) -> Record | Dropped:
    place = Source(path=file.name, line=raw.line)
    try:
        if isinstance(raw.content, BadRow):
            raise raw.content
        return _build(raw.content, file=file, place=place, source=source)
    except BadRow as bad:
        # Lone surrogates cannot be written as UTF-8, and a dropped row must be.
        return Dropped(source=place, reason=bad.reason, detail=bad.detail, raw=shortened(raw.raw, length=2000))


def _build(row: dict[str, Any], *, file: _File, place: Source, source: SourceConfig) -> Record:
    content = file.format.convert(row)
    tags = row.get("tags")
    tags = {key: value for key, value in tags.items() if isinstance(value, str)} if isinstance(tags, dict) else {}
    domain, licence, group = _own(row, "domain", source.domain), _own(row, "licence", source.licence), _group(row, source=source)
    for label in (domain, licence, group or "", *chain(*tags.items())):
        _refuse_surrogates(label)
    return Record(
        id=_identity(content),
        source=place,
        messages=() if isinstance(content, str) else content,
        text=content if isinstance(content, str) else None,
        domain=domain,
        group=group,
        licence=licence,
        tags=tags,
    )


def _identity(content: Content) -> str:
    try:
        return content_digest(content)
    except TypeError:  # the only content without a digest is text that is not Unicode
        for text in [content] if isinstance(content, str) else [message.content for message in content]:
            _refuse_surrogates(text)
        raise


def _group(row: dict[str, Any], *, source: SourceConfig) -> str | None:
    """The group under `group_by`, which must then be there, or else under `group`."""
    value = row.get(source.group_by.strip().lower() if source.group_by else "group")
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    if source.group_by:
        raise BadRow("missing_field", f"group_by names `{source.group_by}`; here it is missing, empty or neither text nor number")
    return None


def _own(row: dict[str, Any], key: str, default: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) and value else default


def _refuse_surrogates(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        what = f"byte 0x{code - 0xDC00:02x} is not UTF-8" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X} is half a character"
        raise BadRow("encoding", f"{what}, at position {error.start + 1}: {shortened(text)}. Save the file as UTF-8.") from error
