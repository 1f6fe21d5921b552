import json
from itertools import pairwise
from pathlib import Path

from benchmarks.data.rows import NUM_FILES, write_rows


def test_rows_are_as_many_as_asked_for_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = (write_rows(tmp_path / name, num_rows=101) for name in ("a", "b"))
    lines = [path.read_text().splitlines() for path in first]
    assert [len(each) for each in lines] == [51, 50]
    assert len(first) == NUM_FILES
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert all(json.loads(line).keys() == {"prompt", "completion"} for each in lines for line in each)


def test_some_rows_differ_from_the_one_before_in_a_word(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_rows(tmp_path, num_rows=400)[0].read_text().splitlines()]
    near = [
        sum(a != b for a, b in zip(row["completion"].split(), before["completion"].split(), strict=False)) <= 1
        for before, row in pairwise(rows)
        if row["prompt"] == before["prompt"]
    ]
    assert all(near)
    assert 0.01 < len(near) / len(rows) < 0.12
