"""Every row and token is accounted for, under every policy, against counts made here from the rendered rows alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.data.chat import ChatFormat
from tunesmith.data.config import Overlong
from tunesmith.data.ledger import refuse_faults, refuse_losses
from tunesmith.data.pack import Encoded, encode
from tunesmith.errors import DataError, GateRefused
from tunesmith.records import Message, Record, Role, Source

Build = Callable[..., Record]
POLICIES = get_args(Overlong)


def row(number: int, sizes: list[int], *, is_text: bool) -> Record:
    place = Source(path=f"{'ab'[number % 2]}.jsonl", line=number + 1)
    if is_text:
        return Record(id=str(number), source=place, text="open " * sum(sizes))
    turns = tuple(
        message
        for size in sizes
        for message in (Message(role=Role.USER, content="why " * size), Message(role=Role.ASSISTANT, content="day " * size))
    )
    return Record(id=str(number), source=place, messages=turns)


def check_sums(encoded: Encoded, *, num_rows: int) -> None:
    ledger = encoded.ledger
    for account in [ledger.total, *ledger.sources.values()]:
        lost = [account.truncated, *account.dropped.values()]
        assert account.every.tokens == account.kept.tokens + sum(tally.tokens for tally in lost)
        assert account.every.supervised == account.kept.supervised + sum(tally.supervised for tally in lost)
        assert account.every.rows == account.kept.rows + sum(tally.rows for tally in account.dropped.values())
    total = ledger.total
    assert total.every.rows == num_rows
    assert total.kept.tokens + total.num_repeated == encoded.num_tokens
    assert total.kept.supervised == encoded.num_supervised
    assert total.kept.rows == len(set(encoded.record_ids))


ROWS = st.lists(st.tuples(st.lists(st.integers(1, 25), min_size=1, max_size=3), st.booleans()), min_size=1, max_size=8)


@pytest.mark.parametrize("template", ["chatml", "llama3", "qwen3"])
@given(
    rows=ROWS, max_length=st.integers(8, 90), overlong=st.sampled_from(POLICIES), learn=st.sampled_from(["answers", "everything"])
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_account_adds_up_to_what_the_rendered_rows_hold(
    load_chat: Callable[[str], ChatFormat],
    template: str,
    rows: list[tuple[list[int], bool]],
    max_length: int,
    overlong: Overlong,
    learn: Literal["answers", "everything"],
) -> None:
    chat = load_chat(template)
    records = [row(i, sizes, is_text=is_text) for i, (sizes, is_text) in enumerate(rows)]
    encoded = encode(records, chat=chat, max_length=max_length, overlong=overlong, learn=learn)
    check_sums(encoded, num_rows=len(records))
    rendered = [(record, one) for record in records for one in chat.render(record)]
    for source in {record.source.path for record in records}:
        mine = [one for record, one in rendered if record.source.path == source]
        account = encoded.ledger.sources[source]
        assert account.every.tokens == sum(len(one.tokens) for one in mine)
        assert account.every.supervised == sum(learn == "everything" or weight > 0 for one in mine for weight in one.weights[1:])
    assert all(len(sequence.tokens) <= max_length for sequence in encoded.sequences)
    if overlong == "drop":
        assert not encoded.ledger.total.truncated.tokens
    if overlong == "split":
        assert encoded.ledger.num_lost == 0


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4), max_length=st.integers(8, 60))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_split_learns_every_supervised_token_once_after_the_tokens_that_stand_before_it(
    load_chat: Callable[[str], ChatFormat], template: str, sizes: list[int], max_length: int
) -> None:
    chat = load_chat(template)
    record = row(0, sizes, is_text=False)
    (rendered,) = chat.render(record)
    encoded = encode([record], chat=chat, max_length=max_length, overlong="split")
    learned = [target for sequence in encoded.sequences for target in sequence.targets.tolist() if target >= 0]
    expected = [t for t, w in zip(rendered.tokens[1:], rendered.weights[1:], strict=True) if w > 0]
    assert learned == expected
    begins_with_bos = rendered.tokens[0] == chat.bos_token
    text = ",".join(map(str, rendered.tokens))
    for sequence in encoded.sequences:
        tokens = sequence.tokens.tolist()
        assert not begins_with_bos or tokens[0] == chat.bos_token
        assert ",".join(map(str, tokens[1 if begins_with_bos else 0 :])) in text


def test_left_keeps_the_end_and_the_bos(load_chat: Callable[[str], ChatFormat], conversation: Build) -> None:
    chat = load_chat("llama3")
    record = conversation("Where is it? " * 20, "Here.")
    (rendered,) = chat.render(record)
    (sequence,) = encode([record], chat=chat, max_length=20, overlong="left").sequences
    assert sequence.tokens.tolist() == [chat.bos_token, *rendered.tokens[-19:]]
    assert int((sequence.targets >= 0).sum()) == sum(weight > 0 for weight in rendered.weights)


def test_drop_names_the_row_and_counts_its_tokens(load_chat: Callable[[str], ChatFormat], conversation: Build) -> None:
    chat = load_chat("chatml")
    long = conversation("Where is it? " * 20, "Here.")
    encoded = encode([long, conversation("a", "b", id="s")], chat=chat, max_length=20, overlong="drop")
    assert [(row.reason, str(row.source)) for row in encoded.dropped] == [("overlong", "chats.jsonl:1")]
    (rendered,) = chat.render(long)
    assert encoded.ledger.total.dropped["overlong"].tokens == len(rendered.tokens)
    assert encoded.ledger.num_lost == 0


def test_more_than_one_percent_lost_is_refused_with_the_rows_and_the_length_that_keeps_all(
    load_chat: Callable[[str], ChatFormat],
) -> None:
    chat = load_chat("chatml")
    short = [row(i, [10], is_text=False) for i in range(200)]
    (small,) = chat.render(short[0])
    long = row(200, [10, 13], is_text=False)
    (large,) = chat.render(long)
    fits = encode(short, chat=chat, max_length=len(small.tokens)).ledger
    refuse_losses(fits, max_length=len(small.tokens), context=512)
    few = encode([*short, long], chat=chat, max_length=len(large.tokens) - 3).ledger
    assert few.num_lost == 3
    refuse_losses(few, max_length=0, context=512)
    many = encode([*short[:20], long], chat=chat, max_length=len(small.tokens)).ledger
    assert many.num_lost > 0.01 * many.total.every.supervised
    with pytest.raises(
        GateRefused, match=rf"a\.jsonl:201  {len(large.tokens)} tokens(.|\n)*max_length: {len(large.tokens)}\."
    ) as refused:
        refuse_losses(many, max_length=len(small.tokens), context=512)
    assert refused.value.exit_code == 3
    with pytest.raises(GateRefused, match="reads at most 60"):
        refuse_losses(many, max_length=len(small.tokens), context=60)


def load_with(folder: Path, *, like: Path, **configuration: object) -> ChatFormat:
    from tests.data.conftest import CONTROL, write_tokenizer

    write_tokenizer(folder, like=like, control=CONTROL, template=None)
    there = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in (there | configuration).items() if v is not None}))
    return ChatFormat.load(folder)


DEAF = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if messages[-1].role == 'assistant' or add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    "{% if messages[-1].role == 'assistant' %}{{ '<|im_end|>' }}{% endif %}"
)
TWICE = "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ '[INST]' + m.content + '<|im_end|>' }}{% endfor %}"
# An answer after the first question ends; a later one does not.
ENDLESS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' + m.content }}"
    "{% if m.role == 'user' or loop.index0 == 1 %}{{ '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant:' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "reason", "words"),
    [
        (DEAF, "no_place_for_answer", "does not print the answer"),
        (TWICE, "double_bos", "two BOS"),
        (ENDLESS, "no_end_of_turn", "would never stop"),
    ],
)
def test_what_would_teach_something_wrong_is_refused_with_file_and_line(
    tmp_path: Path, tokenizer_folder: Path, conversation: Build, template: str, reason: str, words: str
) -> None:
    chat = load_with(tmp_path, like=tokenizer_folder, chat_template=template, eos_token=None)
    encoded = encode([conversation("a", "b", "c", "longer")], chat=chat, max_length=64)
    assert [row.reason for row in encoded.ledger.faults] == [reason]
    with pytest.raises(DataError, match=f"chats.jsonl:1  .*{words}") as refused:
        refuse_faults(encoded.ledger)
    assert refused.value.exit_code == 2
    check_sums(encoded, num_rows=1)


def test_a_row_with_nothing_to_learn_is_a_fault_and_one_cut_to_nothing_is_not(
    load_chat: Callable[[str], ChatFormat], conversation: Build
) -> None:
    silent, long = conversation("a", "b", weights={1: 0.0}), conversation("a long question " * 20, "yes")
    encoded = encode([silent, long], chat=load_chat("chatml"), max_length=16)
    assert [row.detail for row in encoded.ledger.faults] == [encoded.dropped[0].detail]
    with pytest.raises(DataError, match=r"chats\.jsonl:1  nothing to learn"):
        refuse_faults(encoded.ledger)


@pytest.mark.parametrize("template", ["chatml", "llama3", "mistral", "gemma", "qwen3", "plain", "ends_once"])
def test_sound_templates_have_no_faults(load_chat: Callable[[str], ChatFormat], conversation: Build, template: str) -> None:
    thinking = conversation("a", "<think>hm</think>b", "c", " d\n", "e", "<think>only this</think>")
    encoded = encode([conversation("a", "b"), thinking], chat=load_chat(template), max_length=256)
    assert encoded.ledger.faults == ()


def test_sources_are_grouped_as_the_recipe_names_them(load_chat: Callable[[str], ChatFormat]) -> None:
    records = [row(i, [2], is_text=False) for i in range(4)]
    ledger = encode(records, chat=load_chat("chatml"), max_length=64, sources=("*.jsonl",)).ledger
    assert {name: account.every.rows for name, account in ledger.sources.items()} == {"*.jsonl": 4}


def test_two_ledgers_are_one(load_chat: Callable[[str], ChatFormat]) -> None:
    records = [row(i, [i + 1], is_text=False) for i in range(10)]
    chat = load_chat("chatml")
    whole = encode(records, chat=chat, max_length=40)
    parts = [encode(part, chat=chat, max_length=40).ledger for part in (records[:3], records[3:])]
    assert parts[0].plus(parts[1]).as_json() == whole.ledger.as_json()
    assert parts[0].plus(parts[1]).longest == whole.ledger.longest


def test_supervision_means_what_packing_learns(load_chat: Callable[[str], ChatFormat], conversation: Build) -> None:
    encoded = encode([conversation("a", "b", "c", "d", weights={1: 0.5})], chat=load_chat("chatml"), max_length=64)
    assert encoded.ledger.total.kept.supervised == int(np.count_nonzero(encoded.weights))
