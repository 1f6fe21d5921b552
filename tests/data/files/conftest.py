import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.data.files import RawRow, examine, find_parts


@pytest.fixture
def rows_in(tmp_path: Path) -> Callable[..., list[RawRow]]:
    """Write bytes under a name and read their rows."""

    def read(name: str, data: bytes) -> list[RawRow]:
        (tmp_path / name).write_bytes(data)
        return [row for part in find_parts(name, folder=tmp_path).parts for row in examine(part).rows]

    return read


class OneByteAtATime(io.RawIOBase):
    """The most unhelpful stream there is: every border falls between two bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002
        return self._data.read(1)
