"""Which encoding a file is in, on what evidence; and the file as UTF-8.

The whole file is looked at, since its first letter beyond ASCII may stand at its end. What cannot be decoded stays an invalid
byte, so that the row around it is found bad and no other.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from tunesmith.data.files.latin import LATIN, decodes, has_controls, latin_of

__all__ = ["UTF8", "Encoding", "as_utf8", "decoded", "encoding_of"]

_BLOCK = 1 << 20
_FEW = 5
"""Bytes. Two alike (Wann \x94ffnen Sie?) may be a letter in one encoding and a sign that is as good in another."""
_SAMPLE = 1 << 17
_BAD = re.compile("[\udc80-\udcff]")
_CONTROLS = re.compile("[\x80-\x9f]")
_PAGE = re.compile(rb"\s*<[!?a-z]", re.IGNORECASE)
_DECLARED = re.compile(rb"""(?:charset\s*=\s*|<\?xml[^>]{0,80}encoding\s*=\s*)["']?([A-Za-z0-9_.:-]{2,30})""", re.IGNORECASE)
_BOMS = (
    # UTF-32's little-endian mark begins with UTF-16's, so it is tried first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# An encoding and the one that holds it whole, as web browsers read it (encoding.spec.whatwg.org).
_WIDER = {
    "ascii": "utf-8",
    "big5": "big5hkscs",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz": "hz",
    "iso8859_1": "cp1252",
    "iso8859_9": "cp1254",
    "iso8859_11": "cp874",
    "latin_1": "cp1252",
    "shift_jis": "cp932",
    "tis_620": "cp874",
}
_LEGACY = (
    *(
        "big5hkscs",
        "big5",
        "cp932",
        "shift_jis",
        "euc_jis_2004",
        "euc_jp",
        "cp949",
        "euc_kr",
        "johab",
        "gb18030",
        "gb2312",
        "gbk",
    ),
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "tis_620"),
    *("koi8_r", "koi8_u", "cp855", "cp866", "cp850", "cp437", "mac_cyrillic", "mac_greek", "mac_roman", "latin_1"),
    *(f"iso8859_{number}" for number in (2, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)),
)
_ALIASES = {
    "x-sjis": "cp932",
    "x-gbk": "gb18030",
    "x-euc-jp": "euc_jp",
    "x-x-big5": "big5hkscs",
    "x-mac-cyrillic": "mac_cyrillic",
}


class Encoding(NamedTuple):
    """A codec's name and why it is believed."""

    name: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.name} ({self.evidence})"


UTF8 = Encoding("utf-8", "as JSON and most files are")


class _Scan(NamedTuple):
    """What a file's bytes show: characters that are UTF-8 beyond ASCII, bytes that are not UTF-8, and a part to look at."""

    num_valid: int
    num_invalid: int
    head: bytes
    sample: bytes


def encoding_of(file: IO[bytes]) -> Encoding:
    """Tell a file's encoding, reading it to its end in constant memory."""
    scan = _scan(file)
    for mark, name in _BOMS:
        if scan.head.startswith(mark):
            return Encoding(name, "its byte order mark")
    if known := _without_mark(scan.head) or _escaped(scan.sample or scan.head):
        return known
    if not scan.num_invalid:
        what = f"{scan.num_valid:,} characters beyond ASCII, all sound" if scan.num_valid else "ASCII alone"
        return Encoding("utf-8", what)
    if scan.num_valid <= scan.num_invalid and _PAGE.match(scan.head) and (declared := _declared(scan)):
        return declared
    # One odd byte is damage; an encoding shows itself more often.
    if scan.num_invalid == 1 or scan.num_valid > scan.num_invalid:
        return Encoding("utf-8", f"{scan.num_valid:,} characters beyond ASCII are sound, {scan.num_invalid:,} bytes are not")
    return _legacy(scan) or Encoding("utf-8", f"{scan.num_invalid:,} bytes are in no encoding known here")


def decoded(data: bytes, *, encoding: Encoding | None = None) -> str:
    """Decode a whole file; a byte that is in no way text becomes a lone surrogate, U+DC00 and the byte."""
    found = encoding or encoding_of(io.BytesIO(data))
    return _without_controls(data.decode(found.name, "tunesmith.marked"), found.name).removeprefix("\ufeff")


def as_utf8(file: IO[bytes], encoding: Encoding) -> IO[bytes]:
    """The same file in UTF-8 without a byte order mark, read in constant memory."""
    if encoding.name == "utf-8":
        return file
    return io.BufferedReader(_Recoding(file, encoding.name), _BLOCK)


class _Recoding(io.RawIOBase):
    """Bytes of one encoding read as UTF-8."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._decoder = codecs.getincrementaldecoder(name)(errors="tunesmith.marked")
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        """As every reader is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with UTF-8."""
        while not self._ready and not self._ended:
            block = self._file.read(_BLOCK)
            self._ended = not block
            text = self._decoded(block)
            self._ready = text.encode("utf-8", "surrogateescape")
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decoded(self, block: bytes) -> str:
        try:
            return _without_controls(self._decoder.decode(block, final=self._ended), self._name)
        except UnicodeError:  # UTF-16 and UTF-32 that lack their mark
            self._decoder = codecs.getincrementaldecoder(f"{self._name}-le")(errors="tunesmith.marked")
            return self._decoder.decode(block, final=self._ended)


def _without_controls(text: str, name: str) -> str:
    """A text in which control characters of ISO 8859, which are the wrong encoding's signs or damage, stand as undecodable bytes."""
    if not codecs.lookup(name).name.startswith("iso8859"):
        return text
    return _CONTROLS.sub(lambda match: chr(0xDC00 + ord(match[0])), text)


def _marked(error: UnicodeError) -> tuple[str, int]:
    """Stand for undecodable bytes with one that is no UTF-8 either."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    byte = error.object[error.start]
    return chr(0xDC00 + byte) if byte >= 0x80 else "\udcff", error.end


codecs.register_error("tunesmith.marked", _marked)


def _scan(file: IO[bytes]) -> _Scan:
    num_valid = num_invalid = 0
    head, sample, size = b"", [], 0
    decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode
    while block := file.read(_BLOCK):
        head = head or block[:_SAMPLE]
        if block.isascii():
            decode(block)
            continue
        text = decode(block)
        beyond = sum(map(len, re.findall(r"[^\x00-\x7f]+", text)))
        bad = len(_BAD.findall(text))
        num_valid += beyond - bad
        num_invalid += bad
        if size < _SAMPLE:
            first = next((i for i, byte in enumerate(block) if byte >= 0x80), 0)
            sample.append(block[max(0, first - 200) :][: _SAMPLE - size])
            size += len(sample[-1])
    num_invalid += len(_BAD.findall(decode(b"", final=True)))
    return _Scan(num_valid, num_invalid, head, b"".join(sample))


def _without_mark(head: bytes) -> Encoding | None:
    """UTF-16 or UTF-32 without a mark, known by where the zero bytes stand."""
    start = head[: len(head) // 4 * 4][:4096]
    if len(start) < 4 or b"\x00" not in start:
        return None
    zeros = [start[i::4].count(0) / (len(start) // 4) for i in range(4)]
    for name, empty, full in (
        ("utf-32-le", (2, 3), (0,)),
        ("utf-32-be", (0, 1), (3,)),
        ("utf-16-le", (1, 3), (0, 2)),
        ("utf-16-be", (0, 2), (1, 3)),
    ):
        if all(zeros[i] > 0.4 for i in empty) and all(zeros[i] < 0.1 for i in full) and decodes(head, name):
            return Encoding(name, "where its zero bytes stand")
    return None


def _escaped(sample: bytes) -> Encoding | None:
    """Encodings of seven bits, which change alphabets by escape sequences."""
    for mark, name in ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_2"), (b"\x1b(", "iso2022_jp_2"), (b"~{", "hz")):
        if mark in sample and not any(byte >= 0x80 for byte in sample):
            try:
                text = codecs.getincrementaldecoder(name)(errors="strict").decode(sample)
            except UnicodeDecodeError:
                continue
            if not text.isascii():
                return Encoding(name, "its escape sequences")
    return None


def _declared(scan: _Scan) -> Encoding | None:
    """What a page says of itself, if it can be so."""
    if (match := _DECLARED.search(scan.head[:4096])) and (name := _codec(match[1])) and decodes(scan.sample, name):
        return Encoding(name, f"it declares {match[1].decode()}")
    return None


def _legacy(scan: _Scan) -> Encoding | None:
    if declared := _declared(scan):
        return declared
    latin = latin_of(scan.sample)
    read = latin and Encoding(latin.name, f"it reads as text of the language `{latin.language}`{_by_few(scan)}")
    if latin and latin.is_plain:
        return read
    from charset_normalizer import from_bytes

    best = from_bytes(scan.sample, cp_isolation=list(_LEGACY), enable_fallback=False).best()
    if best is None:
        return None
    name = _WIDER.get(best.encoding, best.encoding)
    name = name if decodes(scan.sample, name) else best.encoding
    if latin and not _is_other_script(scan.sample, name):
        return read
    if name in LATIN or has_controls(scan.sample.decode(name, "replace")):
        return None
    others = [_WIDER.get(other, other) for other in best.could_be_from_charset[:3]]
    rest = ", ".join(dict.fromkeys(other for other in others if other != name))
    return Encoding(
        name, f"its letters read as {best.language} text" + (f"; {rest} would read the same" if rest else "") + _by_few(scan)
    )


def _by_few(scan: _Scan) -> str:
    """What to say where too little speaks for an encoding."""
    few = f", by {scan.num_invalid} bytes alone; if that is wrong, name it, as in `--encoding cp850`"
    return few if scan.num_invalid < _FEW else ""


def _is_other_script(sample: bytes, name: str) -> bool:
    """Whether most letters beyond ASCII are not Latin ones."""
    letters = [letter for letter in sample.decode(name, "replace") if letter.isalpha() and not letter.isascii()]
    return name not in LATIN and sum(ord(letter) > 0x24F for letter in letters) * 2 > len(letters)


def _codec(declared: bytes) -> str | None:
    try:
        said = declared.decode("ascii").lower()
        name = codecs.lookup(_ALIASES.get(said, said)).name.replace("-", "_")
    except (LookupError, UnicodeDecodeError):
        return None
    name = _WIDER.get(name, name)
    return None if name.startswith("utf") else name
