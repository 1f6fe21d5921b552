"""Forgetting on general text: a model that forgot is told from one that did not."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tunesmith.evaluate import Likelihood
from tunesmith.evaluate.forgetting import CLEAR, SLIGHT, Probe, forgetting_in_words, general_probe, measure_forgetting
from tunesmith.records import Message, Record, Source


class Arm:
    """Finds every byte as likely as told, give or take a little that hangs on the passage alone."""

    def __init__(self, bits: float, *, of_kind: str | None = None, factor: float = 1.0, noise: float = 0.0) -> None:
        self.bits, self.of_kind, self.factor, self.noise = bits, of_kind, factor, noise

    def generate(self, _: Sequence[Sequence[Message]], /) -> list[str]:
        raise AssertionError("nothing is asked")

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        return [self._one(record) for record in records]

    def _one(self, record: Record) -> Likelihood:
        size = len((record.text or "").encode())
        rate = self.bits * (self.factor if record.domain == self.of_kind else 1.0)
        rate += self.noise * float(np.random.default_rng(record.source.line).normal())
        return Likelihood(nll=rate * math.log(2) * size, num_tokens=size // 4, num_bytes=size)


def test_the_probe_is_varied_short_text_of_known_content() -> None:
    probe = general_probe()
    assert 55 <= len(probe.records) <= 70
    assert len(probe.digest) == 64
    assert {"everyday", "science", "history", "letter", "recipe", "code", "numbers", "deutsch", "français"} <= {
        record.domain for record in probe.records
    }
    texts = [record.text or "" for record in probe.records]
    assert len(set(texts)) == len(texts)
    assert all(60 < len(text) < 400 for text in texts)


@pytest.mark.parametrize(
    ("rise", "reading"),
    [(-0.05, "none"), (0.0, "none"), (0.009, "none"), (0.011, "slight"), (0.099, "slight"), (0.101, "clear"), (2.0, "clear")],
)
def test_forgetting_is_read_by_how_much_bits_per_byte_rise(rise: float, reading: str) -> None:
    found = measure_forgetting(Arm(2.0 * (1 + rise)), Arm(2.0))
    assert found["reading"] == reading
    assert found["base"] == pytest.approx(2.0)
    assert found["difference"]["value"] == pytest.approx(2.0 * rise)
    assert found["percent"] == pytest.approx(100 * rise)
    assert (SLIGHT, CLEAR) == (1.0, 10.0)


def test_a_rise_that_chance_explains_is_no_forgetting() -> None:
    """Some 5 % more on average, but the passages disagree so much that the interval reaches below 0."""
    calm, torn = (measure_forgetting(Arm(2.1, noise=noise), Arm(2.0)) for noise in (0.0, 1.5))
    shift = calm["difference"]["value"] - torn["difference"]["value"]  # what the noise happens to add on average
    found = measure_forgetting(Arm(2.1 + shift, noise=1.5), Arm(2.0))
    assert found["percent"] == pytest.approx(5.0)
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    assert (found["reading"], calm["reading"]) == ("none", "slight")


def test_the_interval_is_paired_over_passages() -> None:
    """Both arms find the same passages hard: unpaired, the interval would be wider than the difference."""
    found = measure_forgetting(Arm(2.1, noise=0.5), Arm(2.0, noise=0.5))
    difference = found["difference"]
    assert 0.09 < difference["low"] <= 0.1 <= difference["high"] < 0.11
    assert found["reading"] == "slight"


def test_what_was_forgotten_is_shown_by_kind_of_text() -> None:
    found = measure_forgetting(Arm(2.0, of_kind="deutsch", factor=3.0), Arm(2.0))
    kinds = found["kinds"]
    assert kinds["deutsch"]["tuned"] == pytest.approx(6.0)
    assert kinds["history"]["tuned"] == pytest.approx(kinds["history"]["base"])
    assert sum(kind["num_passages"] for kind in kinds.values()) == found["probe"]["num_passages"]


def test_a_model_that_finds_general_text_impossible_has_clearly_forgotten() -> None:
    found = measure_forgetting(Arm(math.inf), Arm(2.0))
    assert (found["reading"], found["tuned"]) == ("clear", None)
    assert (
        forgetting_in_words({"safety": {"forgetting": found}}) == "General text clearly worse: 2.000 -> infinite bits per byte."
    )


def test_a_base_that_finds_text_impossible_cannot_be_compared() -> None:
    found = measure_forgetting(Arm(2.0), Arm(math.inf))
    assert found["reading"] == "unknown"
    assert forgetting_in_words({"forgetting": found}) == ""


def test_few_passages_are_read_by_the_figure_itself() -> None:
    record = Record(id="a", source=Source(path="x", line=1), text="A text of some thirty characters.")
    found = measure_forgetting(Arm(2.3), Arm(2.0), probe=Probe((record,), "digest"))
    assert (found["difference"]["low"], found["reading"]) == (None, "clear")


def test_forgetting_is_told_in_words() -> None:
    found = measure_forgetting(Arm(2.05), Arm(2.0))
    assert forgetting_in_words({"safety": {"forgetting": found}}) == (
        "General text slightly worse: 2.000 -> 2.050 bits per byte (+2.5 %)."
    )
    assert forgetting_in_words({}) == ""
    assert forgetting_in_words({"safety": {"forgetting": None}}) == ""
