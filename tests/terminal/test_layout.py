"""Labels, columns and units."""

from __future__ import annotations

import pytest
from rich.text import Text

from tunesmith.terminal.layout import columns, duration, field, on_one_line, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (41.2, "41s"), (59.6, "1m 00s"), (125, "2m 05s"), (3600, "1h 00m"), (5400, "1h 30m")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_are_powers_of_ten() -> None:
    assert size(478_000_000) == "478 MB"
    assert size(2_100_000_000) == "2.1 GB"


def test_a_field_folds_under_its_label_and_leaves_no_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = field("verdict", "better than the base on every single figure that was measured").plain.split("\n")
    assert len(lines) > 1
    assert lines[0].startswith("  verdict    better")
    assert all(line.startswith(" " * 13) for line in lines[1:])
    assert all(len(line) <= 40 and line == line.rstrip() for line in lines)


def test_a_field_keeps_line_breaks_and_styles() -> None:
    text = Text("one\ntwo", style="bold")
    assert field("x", text).plain == "  x          one\n             two"


def test_a_long_label_does_not_run_into_what_it_says() -> None:
    assert field("tuned+few_shot", "one").plain == "  tuned+few_shot one"


def test_columns_align_names_left_and_figures_right() -> None:
    table = columns([["metric", "base"], ["perplexity", "124.1"], ["BLEU", "0.1"]], indent=0)
    assert table.split("\n") == ["metric        base", "perplexity   124.1", "BLEU           0.1"]


def test_long_texts_are_cut_and_white_space_folded() -> None:
    assert on_one_line(" a\n b\t c ") == "a b c"
    assert on_one_line("word " * 100, limit=20) == "word word word word…"


def test_nothing_that_a_terminal_would_obey_is_shown_of_a_file() -> None:
    assert field("left out", "q\x1b[2J\x07\u202e\nb").plain == "  left out   q\ufffd[2J\ufffd\ufffd\n             b"
