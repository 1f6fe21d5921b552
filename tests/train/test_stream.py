from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.records import TokenBatch
from tunesmith.train.config import TrainConfig
from tunesmith.train.stream import Cursor, count_steps, pass_tokens, passes_per_step


def batch(name: str) -> TokenBatch:
    one = np.ones(1, np.int32)
    return TokenBatch(
        tokens=one, targets=one, weights=one.astype(np.float32), offsets=np.array([0, 1], np.int32), record_ids=(name,)
    )


def epoch(number: int, *, sizes: list[int]) -> list[TokenBatch]:
    """Epochs need not have the same number of batches: each is packed anew."""
    return [batch(f"{number}/{i}") for i in range(sizes[number % len(sizes)])]


def names(batches: list[TokenBatch]) -> list[str]:
    return [each.record_ids[0] for each in batches]


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(deadline=None, max_examples=50)
@given(sizes=SIZES, counts=st.lists(st.integers(1, 7), max_size=12))
def test_every_batch_of_every_epoch_comes_once_and_in_order(sizes: list[int], counts: list[int]) -> None:
    cursor = Cursor(lambda number: epoch(number, sizes=sizes))
    taken = [name for count in counts for name in names(cursor.take(count))]
    everything = [name for number in range(100) for name in names(epoch(number, sizes=sizes))]
    assert taken == everything[: sum(counts)]
    assert max(Counter(taken).values(), default=1) == 1


@settings(deadline=None, max_examples=50)
@given(sizes=SIZES, before=st.lists(st.integers(1, 7), max_size=6), after=st.lists(st.integers(1, 7), max_size=6))
def test_epoch_and_place_are_all_it_takes_to_go_on(sizes: list[int], before: list[int], after: list[int]) -> None:
    def epochs(number: int) -> list[TokenBatch]:
        return epoch(number, sizes=sizes)

    cursor = Cursor(epochs)
    for count in before:
        cursor.take(count)
    resumed = Cursor(epochs, epoch=cursor.epoch, place=cursor.place)
    for count in after:
        assert names(resumed.take(count)) == names(cursor.take(count))
    assert (resumed.epoch, resumed.place) == (cursor.epoch, cursor.place)


@pytest.mark.parametrize(
    ("num_batches", "batches_per_step", "epochs", "max_steps", "expected"),
    [
        (10, 1, 3, None, 30),
        (10, 1, 0.5, None, 5),
        (10, 1, 0.01, None, 1),
        (10, 1, 3, 7, 7),
        (10, 1, 3, 70, 30),
        (9, 8, 3, None, 4),  # 27 batches; a step may reach into the next epoch
        (1, 8, 1, None, 1),
        (10, 4, 0.4, None, 1),
        (3, 1, 1 / 3, None, 1),
    ],
)
def test_the_number_of_steps_is_epochs_times_batches_over_batches_a_step(
    num_batches: int, batches_per_step: int, epochs: float, max_steps: int | None, expected: int
) -> None:
    config = TrainConfig(epochs=epochs, max_steps=max_steps)
    assert count_steps(num_batches, batches_per_step=batches_per_step, config=config) == expected


@pytest.mark.parametrize(
    ("batch_tokens", "micro", "longest", "tokens", "passes"),
    [
        (2048, None, 500, 2048, 1),
        (2048, 512, 500, 512, 4),
        (2048, 256, 500, 500, 5),  # a pass holds the longest row, and the step still comes to batch_tokens
        (2048, 4096, 500, 2048, 1),
        (128, None, 500, 500, 1),
        (1000, 300, 100, 300, 4),
    ],
)
def test_a_step_is_cut_into_passes_of_micro_batch_tokens(
    batch_tokens: int, micro: int | None, longest: int, tokens: int, passes: int
) -> None:
    config = TrainConfig(batch_tokens=batch_tokens, micro_batch_tokens=micro)
    assert pass_tokens(config, longest=longest) == tokens
    assert passes_per_step(config, tokens=tokens) == passes
