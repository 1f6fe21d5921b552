"""Which rows a point is trained on, and what is said of the curve. That points are trained at all, the journeys show."""

import dataclasses

from tunesmith.pipeline.learning_curve import Point, choose_part, draw_conclusions
from tunesmith.records import Record, Source

ROWS = [Record(id=str(i), source=Source(path="a.jsonl", line=i + 1), text=f"row {i}", group=str(i // 4)) for i in range(80)]


def test_parts_are_nested_and_keep_groups_together() -> None:
    for draw in (0, 1):
        small, half, all_rows = (choose_part(ROWS, share=share, draw=draw) for share in (0.25, 0.5, 1.0))
        assert (len(small), len(half), all_rows) == (20, 40, ROWS)
        assert {row.id for row in small} < {row.id for row in half}
        assert len({row.group for row in small}) == 5
        assert small == choose_part(ROWS, share=0.25, draw=draw)
    assert choose_part(ROWS, share=0.25, draw=0) != choose_part(ROWS, share=0.25, draw=1)
    alone = [dataclasses.replace(row, group=None) for row in ROWS]
    assert len(choose_part(alone, share=0.25, draw=0)) == 20


def conclusion(*losses: float) -> str:
    points = [Point(n, loss) for n, loss in zip((250, 250, 500, 500, 1000), losses, strict=True)]
    curve = draw_conclusions(points)
    assert curve.num_rows_doubled == 2000
    return curve.verdict


def test_the_verdict_says_what_the_interval_says() -> None:
    assert conclusion(2.00, 2.01, 1.70, 1.71, 1.45).startswith("More data would help")
    assert conclusion(1.001, 1.0, 1.0, 1.001, 1.0).startswith("More of the same would hardly help")
    assert conclusion(1.4, 1.1, 1.0, 1.3, 1.05).startswith("Whether more data would help cannot be told")
