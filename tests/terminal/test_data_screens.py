from tunesmith.data.coverage import measure_coverage
from tunesmith.records import Record, Source
from tunesmith.terminal.data_screens import coverage_line


def test_a_verdict_found_on_some_of_the_test_rows_says_of_how_many() -> None:
    rows = [Record(id=str(i), source=Source(path="a.jsonl", line=i + 1), text=f"the price of hat {i}") for i in range(6)]
    found = measure_coverage(rows[:4], targets=rows[4:])
    assert "2 of 3,000 test rows: " in coverage_line(found, num_test=3000).plain
    assert "  2 test rows: " in coverage_line(found, num_test=2).plain
