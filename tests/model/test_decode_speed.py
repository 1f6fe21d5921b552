"""What a server's precision comes to: what was asked for, and what a probe says."""

from typing import Literal

import pytest
import torch

from tunesmith.model import decode_speed
from tunesmith.model.decode_speed import DecodingPrecision, ProductSpeed, product_speed, settled_decoding


def settled(wish: DecodingPrecision, *, one: float, eight: float) -> tuple[str, str, str]:
    return settled_decoding(wish, measure=lambda _: ProductSpeed(one, eight))


@pytest.mark.parametrize(
    ("wish", "has_units", "speeds", "weights", "packing"),
    [
        ("fp32", True, (9.0, 9.0), "fp32", "packed"),
        ("auto", True, (2.0, 1.5), "bf16", "packed"),
        ("auto", True, (2.0, 0.4), "fp32", "packed"),
        ("auto", False, (9.0, 9.0), "fp32", "packed"),
        ("bf16", False, (0.5, 0.5), "bf16", "packed"),
        ("int8", False, (0.5, 0.5), "fp32", "int8"),
    ],
)
def test_only_what_is_asked_for_rounds(
    monkeypatch: pytest.MonkeyPatch,
    wish: DecodingPrecision,
    has_units: bool,
    speeds: tuple[float, float],
    weights: str,
    packing: str,
) -> None:
    monkeypatch.setattr(decode_speed, "has_bf16_units", lambda: has_units)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = settled(wish, one=speeds[0], eight=speeds[1])
    assert (found[0], found[1]) == (weights, packing)
    assert (found[2] == "") == (wish == "fp32")
    if weights == "bf16" or packing == "int8":
        assert "rounded" in found[2]
        assert f"{speeds[0]:.2f} times the speed of fp32 for one stream" in found[2]


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_the_probe_measures_both_numbers_of_rows(kind: Literal["bf16", "int8"], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_speed, "_NUM_WEIGHTS", 1)
    monkeypatch.setattr(decode_speed, "_ROUNDS", 1)
    assert all(0 < ratio < 1000 for ratio in product_speed(kind))
