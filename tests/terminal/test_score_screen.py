"""The figures of predictions made elsewhere, as people see them."""

from tunesmith.evaluate.scoring import Scored
from tunesmith.records import Score
from tunesmith.terminal.score_screen import score_screen


def test_names_of_classes_cannot_steer_the_terminal_or_break_the_table() -> None:
    metrics = {
        name: Score(value=50.0) for name in ("accuracy", "f1:\x1b[31mred", "f1:two\nlines", "f1:\u202eback", "f1:" + 99 * "x")
    }
    found = Scored(metrics=metrics, signatures={}, num_rows=4, num_clusters=4, against={}, differences={})
    lines = score_screen(found).plain.splitlines()
    assert [line.split("   ")[0] for line in (line.strip() for line in lines)][1:5] == [
        "accuracy (%)",
        "F1 of \\x1b[31mred",
        "F1 of two lines",
        "F1 of \\u202eback",
    ]
    assert max(map(len, lines)) < 80
    assert lines[-1].endswith("4 in 4 clusters; intervals need 8 clusters")
