"""Mixing: shares against the formulas written out, streams without repetition, epochs as pure functions of seed and number."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.data.config import DataConfig, MixConfig
from tunesmith.data.mix import count_passes, plan_mix
from tunesmith.data.pack import Batches, Encoded, pack


def of_sources(lengths: dict[str, list[int]]) -> Encoded:
    """Sequences of these lengths for each source, with sources in turns."""
    flat = [(source, length) for source, all_lengths in lengths.items() for length in all_lengths]
    flat.sort(key=lambda pair: pair[1] * 7919 % 101)
    sizes = np.array([length for _, length in flat])
    numbers = np.repeat(np.arange(len(flat), dtype=np.int32), sizes)
    return Encoded(
        tokens=numbers,
        targets=numbers,
        weights=np.ones(len(numbers), np.float32),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        record_ids=tuple(map(str, range(len(flat)))),
        sources=tuple(source for source, _ in flat),
    )


TWO = {"chat": [10] * 900, "faq": [10] * 100}


def passes(
    encoded: Encoded, *, epochs: float = 3.0, weights: dict[str, float] | None = None, **config: object
) -> dict[str, float]:
    mix = plan_mix(encoded, config=MixConfig.model_validate(config), weights=weights or {}, epochs=epochs, seed=0)
    assert mix is not None
    return {part.source: part.passes for part in mix.parts}


def test_without_weights_and_bounds_there_is_no_mix() -> None:
    assert plan_mix(of_sources(TWO), config=MixConfig(), weights={}, epochs=3.0, seed=0) is None
    assert plan_mix(of_sources({"one": [5, 6]}), config=MixConfig(by="temperature"), weights={}, epochs=3.0, seed=0) is None


def test_shares_are_the_formulas() -> None:
    encoded = of_sources(TWO)
    assert passes(encoded, weights={"faq": 2.0, "chat": 0.5}) == {"chat": 0.5, "faq": 2.0}
    ratio = passes(encoded, by="ratio", weights={"chat": 1.0, "faq": 3.0})
    assert ratio == pytest.approx({"chat": 0.25 * 10_000 / 9_000, "faq": 0.75 * 10_000 / 1_000})
    warm = passes(encoded, by="temperature", temperature=2.0)
    mass = {"chat": 9_000**0.5, "faq": 1_000**0.5}
    assert warm == pytest.approx({name: mass[name] / sum(mass.values()) * 10_000 / len(TWO[name]) / 10 for name in TWO})


def test_max_epochs_bounds_the_whole_run_and_takes_nothing_from_others() -> None:
    encoded = of_sources(TWO)
    free = passes(encoded, by="ratio")
    bound = passes(encoded, by="ratio", max_epochs=4.0, epochs=3.0)
    assert bound == pytest.approx({"chat": free["chat"], "faq": 4.0 / 3.0})


LENGTHS = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 20), min_size=1, max_size=30), min_size=1)
CONFIGS = st.builds(
    MixConfig,
    by=st.sampled_from(["proportional", "temperature", "ratio"]),
    temperature=st.floats(1, 8),
    max_epochs=st.none() | st.floats(0.3, 6),
)


@given(lengths=LENGTHS, config=CONFIGS, weight=st.floats(0.2, 5), seed=st.integers(0, 9), epochs=st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_no_sequence_comes_again_before_all_of_its_source_have_come(
    lengths: dict[str, list[int]], config: MixConfig, weight: float, seed: int, epochs: int
) -> None:
    encoded = of_sources(lengths)
    mix = plan_mix(encoded, config=config, weights={"a": weight}, epochs=epochs, seed=seed)
    if mix is None:
        return
    times: Counter[int] = Counter()
    for number in range(epochs):
        times.update(mix.epoch(number).tolist())
        for part in mix.parts:
            counts = [times[i] for i in part.sequences.tolist()]
            assert max(counts) - min(counts) <= 1
    for part in mix.parts:
        taken = sum(times[i] for i in part.sequences.tolist())
        assert taken == np.ceil(part.passes * len(part.sequences) * epochs - 1e-9)
        if config.max_epochs:
            assert taken <= np.ceil(config.max_epochs * len(part.sequences))


def test_an_epoch_is_a_function_of_seed_and_number_alone() -> None:
    encoded = of_sources(TWO)
    config = MixConfig(by="ratio")

    def epoch(number: int, seed: int) -> list[int]:
        mix = plan_mix(encoded, config=config, weights={}, epochs=3.0, seed=seed)
        assert mix is not None
        batches = pack(encoded, batch_tokens=100, seed=seed, epoch=number, chosen=mix.epoch(number))
        return batches.members(len(batches)).tolist()

    assert epoch(2, 0) == epoch(2, 0)  # asked for alone, as after a resume
    assert len({tuple(epoch(number, seed)) for number in range(3) for seed in range(2)}) == 6
    assert {encoded.sources[i] for i in epoch(0, 0)} == {"chat", "faq"}


def test_what_a_run_reads_is_counted_from_its_batches() -> None:
    encoded = of_sources({"chat": [10, 20, 30] * 40, "faq": [15] * 20})
    mix = plan_mix(encoded, config=MixConfig(by="ratio"), weights={}, epochs=3.0, seed=1)
    assert mix is not None

    def epoch(number: int) -> Batches:
        return pack(encoded, batch_tokens=64, seed=1, epoch=number, chosen=mix.epoch(number))

    num_batches = len(epoch(0)) + len(epoch(1)) // 2
    read = [*epoch(0), *list(epoch(1))[: len(epoch(1)) // 2]]
    names = [encoded.sources[int(name)] for batch in read for name in batch.record_ids]
    sizes = [size for batch in read for size in np.diff(batch.offsets).tolist()]
    found = count_passes(encoded, epoch=epoch, num_batches=num_batches)
    for source, available in (("chat", 120), ("faq", 20)):
        assert found[source].sequences == names.count(source)
        assert found[source].epochs == names.count(source) / available
        assert found[source].tokens == sum(size for name, size in zip(names, sizes, strict=True) if name == source)
    assert found == count_passes(encoded, epoch=epoch, num_batches=num_batches, names=("faq", "chat"))
    assert count_passes(encoded, epoch=epoch, num_batches=1, names=("faq", "none", "chat"))["none"] == (0, 0, 0, 0.0)
    assert found["faq"].tokens / sum(passed.tokens for passed in found.values()) == pytest.approx(0.5, abs=0.03)


def test_a_weight_that_nothing_reads_is_refused() -> None:
    rows = [{"path": "a.jsonl"}, {"path": "b.jsonl", "weight": 2}]
    DataConfig.model_validate({"sources": rows, "mix": {"by": "ratio"}})
    with pytest.raises(ValidationError, match=r"sources\[1\]\.weight is set"):
        DataConfig.model_validate({"sources": rows, "mix": {"by": "temperature"}})
