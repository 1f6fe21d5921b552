"""The number format that `auto` comes to: measured in turns, and once."""

from pathlib import Path

import pytest
import torch

from tunesmith.model import machine
from tunesmith.model.machine import bf16_pays, settled_precision, this_machine


def units(monkeypatch: pytest.MonkeyPatch, *, present: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: present)


def timed(monkeypatch: pytest.MonkeyPatch, fp32: list[float], bf16: list[float]) -> list[torch.dtype]:
    """Products take these seconds, over and over."""
    asked: list[torch.dtype] = []

    def seconds(dtype: torch.dtype) -> float:
        asked.append(dtype)
        times = fp32 if dtype == torch.float32 else bf16
        return times[asked.count(dtype) % len(times)]

    monkeypatch.setattr(machine, "_seconds", seconds)
    return asked


def test_without_units_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    units(monkeypatch, present=False)
    asked = timed(monkeypatch, [9.0], [1.0])
    assert not bf16_pays()
    assert asked == []


@pytest.mark.parametrize(("fp32", "bf16", "pays"), [([2.0], [1.0], True), ([1.2], [1.0], False), ([1.0], [8.0], False)])
def test_bf16_must_be_clearly_faster(monkeypatch: pytest.MonkeyPatch, fp32: list[float], bf16: list[float], pays: bool) -> None:
    units(monkeypatch, present=True)
    timed(monkeypatch, fp32, bf16)
    assert bf16_pays() is pays


def test_busy_moments_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    units(monkeypatch, present=True)
    asked = timed(monkeypatch, [2.0, 50.0, 7.0], [9.0, 80.0, 30.0, 1.0])
    assert bf16_pays()
    assert asked[:4] == [torch.float32, torch.bfloat16] * 2


def test_what_was_measured_once_holds_until_the_machine_is_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    units(monkeypatch, present=True)
    file = tmp_path / "cache" / "number-format.json"
    timed(monkeypatch, [2.0], [1.0])
    assert settled_precision("auto", file=file) == "bf16"
    timed(monkeypatch, [1.0], [1.0])
    assert settled_precision("auto", file=file) == "bf16"
    assert settled_precision("fp32", file=file) == "fp32"
    units(monkeypatch, present=False)
    assert settled_precision("auto", file=file) == "fp32"
    file.write_text("{")
    assert settled_precision("auto", file=file) == "fp32"
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file in the way")
    assert settled_precision("auto", file=file) == "fp32"


def test_a_machine_names_its_number_format_as_recipes_do() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU computes in bf16")
    for precision in ("fp32", "bf16"):
        assert this_machine(precision=precision).precision == precision
