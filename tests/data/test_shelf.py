import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.data.shelf import Joined, Mapped, Shelf, shelf_of_dropped, shelf_of_records
from tunesmith.records import Dropped, Message, Record, Role, Source


def record(number: int, *, size: int = 10) -> Record:
    return Record(
        id=f"{number:064x}",
        source=Source(path="a:b.jsonl", line=number + 1),
        messages=(
            Message(role=Role.USER, content=f"ü\u2028{number}\n" + "x" * size),
            Message(role=Role.ASSISTANT, content="y", weight=0.5),
        ),
        rejected=(Message(role=Role.ASSISTANT, content="no"),),
        group=f"g{number}",
        cluster="c",
        origin=number % 3,
        tags={"k": "v"},
        parents=("p",),
    )


def test_rows_come_back_equal_in_any_order_and_while_more_are_added(tmp_path: Path) -> None:
    shelf = shelf_of_records(tmp_path)
    rows = [record(i, size=i * 37 % 5000) for i in range(2000)]  # several blocks
    for row in rows[:1500]:
        shelf.add(row)
    assert list(shelf) == rows[:1500]
    assert [shelf[i] for i in (1499, 0, -1, 7)] == [rows[i] for i in (1499, 0, 1499, 7)]
    for row in rows[1500:]:
        shelf.add(row)
    assert len(shelf) == 2000
    assert list(shelf) == rows
    assert shelf[1995:3000:2] == rows[1995:3000:2]
    with pytest.raises(IndexError):
        shelf[2000]


def test_rows_larger_than_a_block_and_none_at_all(tmp_path: Path) -> None:
    shelf = shelf_of_records(tmp_path)
    assert list(shelf) == []
    rows = [record(0, size=3_000_000), record(1), record(2, size=2_000_000)]
    for row in rows:
        shelf.add(row)
    assert list(shelf) == rows


def test_two_walks_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    shelf = shelf_of_dropped(tmp_path)
    rows = [Dropped(source=Source(path="a", line=i), reason="r", detail="d", raw="z" * 1000) for i in range(3000)]
    for row in rows:
        shelf.add(row)
    assert list(zip(shelf, shelf, strict=True)) == [(row, row) for row in rows]


def test_a_shelf_has_no_name_and_is_gone_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from tunesmith.data.shelf import Shelf\n"
        "shelf = Shelf(write=dict, read=dict, place=Path(sys.argv[1]))\n"
        "[shelf.add({'n': 'x' * 1000}) for _ in range(5000)]; list(shelf)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_memory_holds_none_of_the_rows(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from tunesmith.data.shelf import Shelf\n"
        "shelf = Shelf(write=dict, read=dict, place=Path(sys.argv[1]))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for i in range(200_000): shelf.add({'n': i, 'x': 'x' * 1000})\n"
        "assert sum(row['n'] for row in shelf) == 200_000 * 199_999 // 2\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown_kb = int(subprocess.check_output([sys.executable, "-c", code, str(tmp_path)]))
    assert grown_kb < 20_000  # of 200 MB


def test_a_full_disk_is_told_at_the_row_that_no_longer_fits(tmp_path: Path) -> None:
    shelf: Shelf[dict[str, str]] = Shelf(write=dict, read=dict, place=tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            [shelf.add({"x": "x" * 1000}) for _ in range(4000)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_views_walk_index_and_slice_like_lists() -> None:
    joined = Joined(Mapped(str, [1, 2, 3]), Mapped(json.dumps, [None, True]))
    expected = ["1", "2", "3", "null", "true"]
    assert list(joined) == expected
    assert len(joined) == 5
    assert [joined[i] for i in range(-5, 5)] == expected + expected
    assert joined[1:5:2] == expected[1:5:2]
    assert Mapped(str, [1, 2, 3])[1:] == ["2", "3"]
    with pytest.raises(IndexError):
        joined[5]
