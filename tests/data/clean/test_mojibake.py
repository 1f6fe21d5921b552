import gzip
import json
from pathlib import Path

import pytest

from tunesmith.data.clean.mojibake import repaired

CASES = Path(__file__).parents[4] / "shared" / "data" / "dirty" / "ftfy_cases.jsonl.gz"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CafÃ© Ã  la crÃ¨me", "Café à la crème"),
        ("first line is fine: ©\nsecond: â€œquotedâ€\x9d", "first line is fine: ©\nsecond: “quoted”"),
        ("ÃƒÂ© twice", "é twice"),
    ],
)
def test_wrong_decoding_is_undone(text: str, expected: str) -> None:
    assert repaired(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "„Grüße“, sagte er",
        "Ça va ? – Très bien…",
        "日本語",
        "АБВ №1",
        "naïve Ångström ±5 µm",
        "PARCE QUE SUR LEURS PLAQUES IL Y MARQUÉ…",
    ],
)
def test_text_that_is_right_stays(text: str) -> None:
    assert repaired(text) == text


def test_ftfys_own_cases_are_repaired() -> None:
    if not CASES.is_file():
        pytest.skip("ftfy's cases are not on this machine")
    rows = [json.loads(line) for line in gzip.decompress(CASES.read_bytes()).splitlines()]
    passing = [row for row in rows if row["expect"] == "pass"]
    right = [repaired(row["original"]) == (row["fixed-encoding"] or row["fixed"]) for row in passing]
    assert len(right) >= 100
    assert sum(right) >= 0.95 * len(right)
