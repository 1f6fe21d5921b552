"""Opening a file: what lies inside gzip, Zstandard and zip, with caps on how much may come out.

Nothing is written to disk, so a member's name can lead nowhere; a name that tries is refused all the same.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

import zstandard

from tunesmith.errors import DataError
from tunesmith.records import Dropped, Source

__all__ = ["Opener", "Part", "kind_of", "open_part", "parts_of"]

Opener = Callable[[], IO[bytes]]

PACKED = (".gz", ".zst", ".zip")
_MAX_RATIO = 250
"""How many times its size a file may unfold to; text rarely passes 20. Below `_ALWAYS` bytes it does not matter."""
_ALWAYS = 16 << 20
_MAX_BYTES = 1 << 40
_MAX_MEMBERS = 10_000
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


class Part(NamedTuple):
    """A file, or a member of a zip: what messages call it, its kind, and how it is opened."""

    name: str
    kind: str
    """The suffix that tells how it is read, such as `.csv`; empty if there is none."""
    packing: str
    """`.gz`, `.zst` or empty."""
    opener: Opener
    is_member: bool = False
    """Whether it lies in a zip."""

    @property
    def is_packed(self) -> bool:
        """Whether it may break off in the middle of what it unfolds to."""
        return bool(self.packing) or self.is_member


def kind_of(name: str) -> tuple[str, str]:
    """A file's kind and packing by its name: `a.csv.gz` gives `.csv` and `.gz`."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name.replace("\\", "/")).suffixes]
    if suffixes[-1:] and suffixes[-1] in PACKED:
        return (suffixes[-2] if len(suffixes) > 1 else ""), suffixes[-1]
    return (suffixes or [""])[-1], ""


def parts_of(name: str, opener: Opener) -> Iterator[Part | Dropped]:
    """A file as its parts: itself, or the members of a zip; a member that is not opened is a `Dropped` with its reason.

    Raises:
        DataError: the zip is broken or holds too much.
    """
    kind, packing = kind_of(name)
    if packing != ".zip":
        yield Part(name, kind, packing, opener)
        return
    with _told(name), opener() as file, zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        total = sum(member.file_size for member in members)
    if len(members) > _MAX_MEMBERS:
        raise DataError(
            f"{name}: the zip has {len(members):,} members, more than {_MAX_MEMBERS:,}. Unpack it yourself if you trust it."
        )
    if total > _MAX_BYTES:
        raise DataError(f"{name}: the zip says it unfolds to {total:,} bytes, more than {_MAX_BYTES:,}. Split it.")
    seen = set()
    for i, member in enumerate(members):
        inner = f"{name}/{member.filename}"
        refused = _refusal(member, is_repeated=member.filename in seen)
        seen.add(member.filename)
        if refused:
            yield Dropped(source=Source(path=inner, line=1), reason=refused[0], detail=refused[1])
        elif not _is_hidden(member.filename):
            kind, packing = kind_of(member.filename)
            yield Part(inner, kind, packing, lambda i=i, inner=inner: _member(opener, i, name=inner), is_member=True)  # type: ignore[misc]


@contextmanager
def open_part(part: Part) -> Iterator[IO[bytes]]:
    """Open a part for reading its unpacked bytes.

    Raises:
        DataError: it cannot be read, is not sound, or unfolds to too much.
    """
    with ExitStack() as stack:
        with _told(part.name):
            file = stack.enter_context(part.opener())
        if part.packing:
            counted = _Counted(file)
            with _told(part.name):
                unpacked = _unpacked(io.BufferedReader(counted, 1 << 18), part.packing)
            file = stack.enter_context(io.BufferedReader(_Capped(unpacked, part.name, packed=counted), 1 << 18))
        yield file


def _unpacked(file: IO[bytes], packing: str) -> IO[bytes]:
    if packing == ".gz":
        return gzip.GzipFile(fileobj=file, mode="rb")  # type: ignore[return-value]  # it reads bytes like any other
    return io.BufferedReader(_Zstandard(file), 1 << 18)


def _member(opener: Opener, number: int, *, name: str) -> IO[bytes]:
    """Open a member by its place, since two members may bear one name."""
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(opener())))
        member = [entry for entry in archive.infolist() if not entry.is_dir()][number]
        opened = stack.enter_context(archive.open(member))
        return io.BufferedReader(_Capped(opened, name, closing=stack.pop_all()), 1 << 18)


def _refusal(member: zipfile.ZipInfo, *, is_repeated: bool) -> tuple[str, str] | None:
    name = member.filename
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return (
            "unsafe_name",
            f"the member's name {name!r} leads out of the archive, so it is not opened. Pack it again with plain names.",
        )
    if is_repeated:
        return "repeated_name", f"the archive holds {name!r} more than once; only the first is read. Pack it again."
    if member.flag_bits & 1:
        return "encrypted", f"the member {name!r} is encrypted. Unpack the archive with its password and name the files."
    if member.file_size > _ALWAYS and member.file_size > _MAX_RATIO * max(1, member.compress_size):
        return "too_large", f"the member {name!r} {_TOO_LARGE}"
    if kind_of(name)[1] == ".zip":
        return "nested_archive", f"the member {name!r} is an archive itself. Unpack the outer one and name the files."
    return None


_TOO_LARGE = f"unfolds to more than {_MAX_RATIO} times its size, which data does not. Unpack it yourself if you trust it."


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "~$")) or part == "__MACOSX" for part in PurePosixPath(name).parts)


class _Counted(io.RawIOBase):
    """Counts the packed bytes that were read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.num_read = 0

    def readable(self) -> bool:
        """As every reader is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.num_read += len(data)
        return len(data)


class _Zstandard(io.RawIOBase):
    """Unpacks frame after frame. The library's own stream ends a file that was cut short in silence."""

    _PIECE = 1024  # a piece of a bomb may unfold to 30,000 times its size before anybody can look

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame = self._new_frame()
        self._packed = b""
        self._ready = b""
        self._is_between = True

    def readable(self) -> bool:
        """As every reader is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        while not self._ready:
            piece = self._packed or self._file.read(self._PIECE)
            if not piece:
                if self._is_between:
                    return 0
                raise EOFError("it ends inside a frame")
            self._ready = self._frame.decompress(piece)
            self._packed, self._is_between = b"", self._frame.eof
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._frame = self._new_frame()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    @staticmethod
    def _new_frame() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()


class _Capped(io.RawIOBase):
    """Unpacked bytes, which end in an error where they grow past the cap or are not sound."""

    def __init__(self, file: IO[bytes], name: str, *, packed: _Counted | None = None, closing: ExitStack | None = None) -> None:
        self._file = file
        self._name = name
        self._packed = packed
        self._closing = closing or ExitStack()
        self._num_out = 0

    def close(self) -> None:
        """Close what was opened for it."""
        if not self.closed:
            self._file.close()
            self._closing.close()
        super().close()

    def readable(self) -> bool:
        """As every reader is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        with _told(self._name, num_out=self._num_out):
            data = self._file.read(len(buffer))
        self._num_out += len(data)
        if self._packed and self._num_out > max(_ALWAYS, _MAX_RATIO * self._packed.num_read):
            raise DataError(f"{self._name} {_TOO_LARGE}")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _told(name: str, *, num_out: int = 0) -> Iterator[None]:
    """Say in one sentence that a file cannot be read, and how much of it could be, whatever library found out."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}" if not str(error).startswith(name) else str(error)) from error
    except _BROKEN as error:
        packing = {".gz": "gzip", ".zst": "Zstandard", ".zip": "zip"}.get(kind_of(name)[1], "zip")
        begun = f" Its first {num_out:,} bytes, unpacked, can be read, and what follows is lost." if num_out else ""
        raise DataError(f"{name}: the file is not sound {packing} ({error}).{begun} Copy or download it again.") from error
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read ({error.strerror or error})") from error
