"""Which files a source names: a file, a pattern, a folder, an fsspec URL or a data set of the Hugging Face hub.

The network is touched only where a URL or a hub id is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tunesmith.data.files.unpack import PACKED, Opener, Part, kind_of, parts_of
from tunesmith.errors import DataError, MissingExtra, NotFound, UserError
from tunesmith.records import Dropped

__all__ = ["KINDS", "Found", "find_files", "find_parts", "local_files"]

KINDS = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"),
    *(".txt", ".md", ".html", ".htm", ".pdf", ".docx"),
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[a-z0-9]+::")
_HUB = re.compile(r"hf://(?:datasets/)?(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<inner>.+))?")
_MENDS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), " Save the sheet as `CSV UTF-8`."),
    **dict.fromkeys((".doc", ".odt", ".rtf", ".pages"), " Save it as .docx."),
    **dict.fromkeys((".xz", ".bz2", ".7z", ".rar", ".tar", ".tgz"), " Unpack it."),
}
SOURCE_KEY = "data.sources[].path"
"""The key of a recipe that messages name as the one under which a file is named."""
_CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The parts of a source, the members of archives that were refused, and the files that are of no known kind."""

    parts: tuple[Part, ...]
    refused: tuple[Dropped, ...] = ()
    skipped: tuple[str, ...] = ()


def find_parts(given: str, *, folder: Path, key: str = SOURCE_KEY) -> Found:
    """Find what a source names.

    Args:
        given: as the recipe writes it.
        folder: the recipe's folder, to which paths are relative.
        key: where the recipe writes it, for messages.

    Raises:
        NotFound: no such file, or none matches.
        DataError: no file is of a known kind, or an archive is broken.
    """
    files, is_one = find_files(given, folder=folder, key=key)
    parts: list[Part] = []
    refused: list[Dropped] = []
    skipped: list[str] = []
    for name, opener in files:
        for part in parts_of(name, opener):
            if isinstance(part, Dropped):
                refused.append(part)
            elif part.kind in KINDS:
                parts.append(part)
            elif is_one and part.name == name:
                raise DataError(_unknown(part))
            else:
                skipped.append(part.name)
    if not parts and not refused:
        raise DataError(f"{given}: no file of a known kind; there are {', '.join(skipped[:8]) or 'none'}. Known: {_known()}.")
    return Found(parts=tuple(parts), refused=tuple(refused), skipped=tuple(skipped))


def find_files(given: str, *, folder: Path, key: str = SOURCE_KEY) -> tuple[list[tuple[str, Opener]], bool]:
    """Find files: for each its name, as the recipe writes it or below the recipe's folder, and how it is opened.

    Returns:
        The files, and whether the source names one file rather than a folder or pattern.

    Raises:
        NotFound: there is none.
    """
    if given.startswith("hf://"):
        return _on_hub(given), False
    if given.startswith("file://"):
        given = given.removeprefix("file://")
    elif _URL.match(given):
        return _at_url(given, key=key)
    named, is_one = _local(given, folder=folder, key=key)
    return [(name, _opener(path)) for name, path in named], is_one


def local_files(given: str) -> list[Path]:
    """The files of this machine that a source names; none where it names nothing, or what lies elsewhere."""
    given = given.rpartition("::")[2].removeprefix("file://")  # an archive's members lie in the last: zip://*.csv::rows.zip
    try:
        return [] if _URL.match(given) else [path for _, path in _local(given, folder=Path())[0]]
    except NotFound:
        return []


def _local(given: str, *, folder: Path, key: str = SOURCE_KEY) -> tuple[list[tuple[str, Path]], bool]:
    """Each file's name and path, and whether the source names one file."""
    wanted = Path(given).expanduser()
    path = folder / wanted
    key = f"{key}: {given!r}"
    if path.is_file():
        # An absolute path says where this machine keeps it; the name alone is the same everywhere.
        return [(wanted.name if wanted.is_absolute() else wanted.as_posix(), path)], True
    if path.is_dir():
        matches = sorted(_files_below(path))
        if not matches:
            raise NotFound(f"{path}: the folder holds no file ({key}, relative to {folder}).")
        return [(_relative(match, folder=path if wanted.is_absolute() else folder), match) for match in matches], False
    is_pattern = any(sign in given for sign in "*?[")
    root, pattern = (Path(path.anchor), path.relative_to(path.anchor)) if wanted.is_absolute() else (folder, wanted)
    matches = sorted(match for match in root.glob(pattern.as_posix()) if not match.is_dir()) if is_pattern else []
    if not matches:
        what = "no file matches this pattern" if is_pattern else "no such file"
        raise NotFound(f"{path}: {what} ({key}, relative to {folder}).")
    return [(_relative(match, folder=folder), match) for match in matches], False


def _files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those in it, links to folders too, none twice; a link that leads nowhere is one, for it is told."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not _is_hidden(PurePosixPath(name)))
        for path in (Path(root, name) for name in names if not _is_hidden(PurePosixPath(name))):
            if path.is_file() or (path.is_symlink() and not path.exists()):
                yield path


def _at_url(url: str, *, key: str) -> tuple[list[tuple[str, Opener]], bool]:
    with _Reached(url, key=key):
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
        if any(sign in path for sign in "*["):
            found, is_one = [name for name in sorted(files.glob(path)) if files.isfile(name)], False
        elif files.isfile(path):
            found, is_one = [path], True
        else:
            found, is_one = sorted(files.find(path)), False
            found = [name for name in found if not _is_hidden(PurePosixPath(name).relative_to(path))]
        if not found:
            raise NotFound(f"{url}: there is no such file ({key}).")
        return [(url if is_one else str(files.unstrip_protocol(name)), _remote(files, name, url)) for name in found], is_one


def _on_hub(url: str) -> list[tuple[str, Opener]]:
    """The files of a data set: its parquet as the hub converts it, or those of a named revision."""
    match = _HUB.fullmatch(url)
    if not match:
        raise NotFound(f"{url} names no data set. Write hf://owner/name, hf://owner/name@revision or hf://owner/name/split.")
    with _Reached(url):
        files = _hub()
        # The file system takes a revision's slashes in this spelling.
        revision = match["revision"] or _CONVERTED.replace("/", "%2F")
        names = _listed(files, f"datasets/{match['id']}@{revision}")
        if not names and not match["revision"]:
            names = _listed(files, f"datasets/{match['id']}")
        names = [name for name in names if kind_of(name)[0] in KINDS and not name.endswith(("README.md", "dataset_infos.json"))]
        if not names:
            raise NotFound(f"{url}: the hub has no such data set, or it holds no file that is read here. Known: {_known()}.")
        chosen = [name for name in names if _has_inner(name, match["inner"])]
        if not chosen:
            raise NotFound(f"{url}: no split `{match['inner']}`. Files there: {', '.join(names[:10])}.")
        base = f"hf://{match['id']}" + (f"@{match['revision']}" if match["revision"] else "")
        return [(f"{base}/{name.partition('@')[2].partition('/')[2] or name}", _remote(files, name, url)) for name in chosen]


def _listed(files: Any, root: str) -> list[str]:
    try:
        return sorted(files.find(root))
    except FileNotFoundError:
        return []


def _has_inner(name: str, inner: str | None) -> bool:
    """Whether a file is of a split: a folder on its path, or the beginning of its name."""
    if inner is None:
        return True
    path = PurePosixPath(name)
    wanted = PurePosixPath(inner).parts
    return all(part in path.parts or re.match(rf"{re.escape(part)}(?![A-Za-z0-9])", path.name) for part in wanted)


def _hub() -> Any:
    try:
        from huggingface_hub import HfFileSystem
    except ImportError as error:
        raise MissingExtra("reading hf:// needs huggingface_hub: pip install huggingface_hub") from error
    return HfFileSystem()


class _Reached:
    """Says in one sentence why a remote file was not reached."""

    def __init__(self, url: str, *, key: str = SOURCE_KEY) -> None:
        self._url = url
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, UserError) or not isinstance(error, Exception):
            return
        if isinstance(error, ImportError):
            raise MissingExtra(f"{self._url}: {error}. Install what it names, such as: pip install 'tunesmith[s3]'") from error
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"{self._url}: there is no such file ({self._key}).") from error
        raise DataError(f"{self._url} cannot be reached or read ({type(error).__name__}: {error})") from error


def _remote(files: Any, name: str, url: str) -> Opener:
    def opened() -> IO[bytes]:
        with _Reached(url):
            return files.open(name, "rb")  # type: ignore[no-any-return]

    return opened


def _opener(path: Path) -> Opener:
    return lambda: path.open("rb")


def _relative(path: Path, *, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _is_hidden(path: PurePosixPath) -> bool:
    """Whether it is hidden, or a note of Office that somebody has the file open."""
    return any(part.startswith((".", "~$")) for part in path.parts)


def _known() -> str:
    return f"{' '.join(KINDS)}, each also with {', '.join(PACKED)}"


def _unknown(part: Part) -> str:
    return f"{part.name}: files of kind `{part.kind or 'no suffix'}` are not read.{_MENDS.get(part.kind, '')} Known: {_known()}."
