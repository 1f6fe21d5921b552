from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import Encoded, encode, pack, prefixed
from tunesmith.records import Record, Source

Build = Callable[..., Record]


def text_record(text: str, *, name: str = "t") -> Record:
    return Record(id=name, source=Source(path="a.txt", line=1), text=text)


def test_targets_are_the_next_tokens_of_the_same_sequence(tokenizer_folder: Path, conversation: Build) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    records = [conversation("a", "one two", id="0"), conversation("b", "three", "c", "four", weights={3: 0.25}, id="1")]
    encoded = encode(records, chat=chat, max_length=200)
    assert encoded.record_ids == ("0", "1")
    for record, sequence in zip(records, encoded.sequences, strict=True):
        (rendered,) = chat.render(record)
        n = len(rendered.tokens)
        expected = [rendered.tokens[i + 1] if i + 1 < n and rendered.weights[i + 1] > 0 else -100 for i in range(n)]
        assert sequence.tokens.tolist() == list(rendered.tokens)
        assert sequence.targets.tolist() == expected
        assert sequence.weights.tolist() == [*rendered.weights[1:], 0.0]
    assert encoded.num_supervised == int((encoded.weights > 0).sum())
    assert (encoded.tokens.dtype, encoded.targets.dtype, encoded.weights.dtype) == (np.int32, np.int32, np.float32)


def test_conversation_is_cut_on_the_right_and_counted(tokenizer_folder: Path, conversation: Build) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    record = conversation("How are you?", "We are open today.")
    (rendered,) = chat.render(record)
    keep = len(rendered.tokens) - 3
    encoded = encode([record, conversation("a", "b")], chat=chat, max_length=keep)
    assert encoded.tokens[:keep].tolist() == list(rendered.tokens[:keep])
    assert (encoded.ledger.num_cut_rows, encoded.ledger.num_lost) == (1, 3)
    assert encoded.dropped == ()


def test_row_with_nothing_left_to_learn_is_dropped_with_its_place(tokenizer_folder: Path, conversation: Build) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    record = conversation("a long question " * 20, "yes")
    (rendered,) = chat.render(record)
    learned = sum(weight > 0 for weight in rendered.weights)
    encoded = encode([record, conversation("a", "b", weights={1: 0.0})], chat=chat, max_length=16)
    assert len(encoded) == 0
    assert [row.reason for row in encoded.dropped] == ["nothing_supervised", "nothing_supervised"]
    assert f"all {learned} tokens" in encoded.dropped[0].detail
    assert encoded.ledger.num_lost == learned
    assert len(pack(encoded, batch_tokens=64, seed=0, epoch=0)) == 0


def test_refused_conversation_is_dropped(load_chat: Callable[[str], ChatFormat], conversation: Build) -> None:
    encoded = encode([conversation("a", "b", system="s")], chat=load_chat("gemma"), max_length=64)
    assert [row.reason for row in encoded.dropped] == ["template_refused"]


@given(words=st.integers(1, 60), max_length=st.integers(2, 40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_token_of_a_text_but_the_first_is_predicted_once(tokenizer_folder: Path, words: int, max_length: int) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    record = text_record("open today " * words)
    (rendered,) = chat.render(record)
    encoded = encode([record], chat=chat, max_length=max_length)
    assert encoded.targets[encoded.targets >= 0].tolist() == list(rendered.tokens[1:])
    assert max(len(sequence.tokens) for sequence in encoded.sequences) <= max_length
    assert (encoded.ledger.num_cut_rows, set(encoded.record_ids)) == (0, {"t"})


def test_sequence_of_one_token_is_skipped_and_counted(tmp_path: Path, tokenizer_folder: Path) -> None:
    for path in tokenizer_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("{}")  # without EOS a one-letter text is one token
    encoded = encode([text_record("a"), text_record("Hello, how are you")], chat=ChatFormat.load(tmp_path), max_length=64)
    assert ([row.reason for row in encoded.dropped], len(encoded)) == (["single_token"], 1)


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=40), seed=st.integers(0, 5), epoch=st.integers(0, 3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_hold_every_sequence_once_and_whole(
    tokenizer_folder: Path, conversation: Build, sizes: list[int], seed: int, epoch: int
) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    encoded = encode([conversation("q", "open " * n, id=str(i)) for i, n in enumerate(sizes)], chat=chat, max_length=256)
    whole = {s.record_id: (s.tokens.tolist(), s.targets.tolist(), s.weights.tolist()) for s in encoded.sequences}
    longest = max(len(tokens) for tokens, _, _ in whole.values())
    batches = pack(encoded, batch_tokens=longest + 40, seed=seed, epoch=epoch)
    seen = {}
    for batch in batches:
        assert batch.num_tokens <= longest + 40
        assert (batch.offsets[0], batch.offsets[-1]) == (0, batch.num_tokens)
        for s, name in enumerate(batch.record_ids):
            at = slice(batch.offsets[s], batch.offsets[s + 1])
            seen[name] = (batch.tokens[at].tolist(), batch.targets[at].tolist(), batch.weights[at].tolist())
    assert seen == whole
    assert sum(len(batch.record_ids) for batch in batches) == len(sizes)


def test_order_is_drawn_from_seed_and_epoch(tokenizer_folder: Path, conversation: Build) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    encoded = encode([conversation("q", f"answer {i}", id=str(i)) for i in range(40)], chat=chat, max_length=64)

    def order(seed: int, epoch: int) -> list[str]:
        return [name for batch in pack(encoded, batch_tokens=100, seed=seed, epoch=epoch) for name in batch.record_ids]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(2) for epoch in range(2)}) == 4


def test_batch_too_small_for_a_sequence_is_refused(tokenizer_folder: Path, conversation: Build) -> None:
    encoded = encode([conversation("q", "a")], chat=ChatFormat.load(tokenizer_folder), max_length=64)
    with pytest.raises(ValueError, match="Raise batch_tokens"):
        pack(encoded, batch_tokens=encoded.num_tokens - 1, seed=0, epoch=0)
    assert len(pack(encoded, batch_tokens=encoded.num_tokens, seed=0, epoch=0)) == 1
    with pytest.raises(ValueError, match="at least 2"):
        encode([], chat=ChatFormat.load(tokenizer_folder), max_length=1)


def of_lengths(lengths: NDArray[np.int64]) -> Encoded:
    """Sequences of these lengths; each token tells the number of its sequence."""
    numbers = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return Encoded(
        tokens=numbers,
        targets=numbers,
        weights=np.ones(len(numbers), np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        record_ids=tuple(map(str, range(len(lengths)))),
    )


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=300).map(lambda lengths: np.array(lengths, dtype=np.int64))


@given(lengths=LENGTHS, spare=st.integers(0, 100), seed=st.integers(0, 9), epoch=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_whatever_the_lengths_every_sequence_comes_once_whole_and_within_the_budget(
    lengths: NDArray[np.int64], spare: int, seed: int, epoch: int
) -> None:
    budget = int(lengths.max()) + spare
    batches = pack(of_lengths(lengths), batch_tokens=budget, seed=seed, epoch=epoch)
    found: list[int] = []
    for batch in batches:
        assert 0 < batch.num_tokens <= budget
        for s, name in enumerate(batch.record_ids):
            at = slice(batch.offsets[s], batch.offsets[s + 1])
            assert batch.tokens[at].tolist() == [int(name)] * lengths[int(name)]
            found.append(int(name))
    assert sorted(found) == list(range(len(lengths)))


def skewed(count: int) -> NDArray[np.int64]:
    """Many short rows, few long ones, as chats are: median 120, a long tail, cut at 1,024."""
    lengths = np.random.default_rng(7).lognormal(np.log(120), 0.9, count)
    return np.clip(lengths, 8, 1024).astype(np.int64)


@pytest.mark.parametrize("batch_tokens", [1024, 2048, 8192])
def test_batches_of_skewed_rows_are_filled_to_98_percent(batch_tokens: int) -> None:
    lengths = skewed(20_000)
    batches = pack(of_lengths(lengths), batch_tokens=batch_tokens, seed=0, epoch=0)
    assert lengths.sum() / (len(batches) * batch_tokens) >= 0.98


def test_long_and_short_rows_come_early_and_late_alike() -> None:
    lengths = np.random.default_rng(7).integers(8, 1025, 20_000)  # where gaps are hardest to fill
    correlations = []
    for epoch in range(4):
        place = np.zeros(len(lengths))
        for number, batch in enumerate(pack(of_lengths(lengths), batch_tokens=2048, seed=0, epoch=epoch)):
            place[[int(name) for name in batch.record_ids]] = number
        correlations.append(np.corrcoef(lengths, place)[0, 1])
    assert abs(np.mean(correlations)) < 4 / np.sqrt(4 * len(lengths))  # 4 standard errors of no correlation at all


def test_long_and_short_rows_are_mixed_in_a_batch_as_in_a_sample() -> None:
    lengths = skewed(20_000)
    batches = list(pack(of_lengths(lengths), batch_tokens=4096, seed=0, epoch=0))
    means = np.array([batch.num_tokens / len(batch.record_ids) for batch in batches])
    counts = np.array([len(batch.record_ids) for batch in batches])
    # Of a uniform sample the mean length has the standard error of all lengths over the root of the count. Sorted rows give 5.
    assert means.std() / np.sqrt((lengths.var() / counts).mean()) < 1.5


def test_batches_are_a_sequence_like_any_other() -> None:
    batches = pack(of_lengths(np.full(10, 5)), batch_tokens=10, seed=0, epoch=0)
    names = [batch.record_ids for batch in batches]
    assert len(batches) == len(names) == 5
    assert batches[-1].record_ids == names[4]
    assert [batch.record_ids for batch in batches[1:3]] == names[1:3]
    with pytest.raises(IndexError):
        batches[5]


def test_a_prefix_stands_in_front_of_every_sequence_and_is_not_learned(tokenizer_folder: Path, conversation: Build) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    records = [conversation("a", "one two", id="0"), conversation("b", "three", "c", "four", weights={3: 0.25}, id="1")]
    alone = encode(records, chat=chat, max_length=200)
    found = prefixed(alone, prefix=[7, 8, 9])
    for before, after in zip(alone.sequences, found.sequences, strict=True):
        assert after.tokens.tolist() == [7, 8, 9, *before.tokens]
        assert after.targets.tolist() == [-100, -100, -100, *before.targets]
        assert after.weights.tolist() == [0, 0, 0, *before.weights]
        assert after.record_id == before.record_id
    assert found.ledger == alone.ledger
    assert (found.tokens.dtype, found.targets.dtype, found.weights.dtype) == (np.int32, np.int32, np.float32)
    assert prefixed(alone, prefix=[]) is alone
    nothing = prefixed(encode([], chat=chat, max_length=200), prefix=[7])
    assert (len(nothing), nothing.num_tokens) == (0, 0)
