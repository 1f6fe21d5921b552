"""Makes a version's contract (`data.contract`): asks the model in memory, its base, and what could be served in its place by mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tunesmith.data.chat import ChatFormat
from tunesmith.data.contract import BASE, BF16, SCALED, Contract, Probe, Spoken
from tunesmith.data.pack import encode
from tunesmith.model.generation import generate
from tunesmith.model.load import load_model, load_version
from tunesmith.model.lora import adapter_disabled, adapter_scaled, is_adapter
from tunesmith.model.sampling import Sampling
from tunesmith.model.scoring import score_tokens
from tunesmith.records import Message, Record, Role
from tunesmith.train.proofs_data import learned_after, learned_answers
from tunesmith.train.proofs_measure import proving_machine
from tunesmith.train.proofs_process import Saved

__all__ = ["contract_of", "make_contract"]

_NUM_PROBES = 4
_LONGEST = 384
"""Tokens of a prompt with its answer; longer ones are taken only where there are no others."""
_SCALES = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
"""How often an adapter may count by mistake: alpha / rank left out or twice, alpha / sqrt(rank) for alpha / rank. 0.8 and 1.25
show the way of a scale that is a little off."""
_MOST_COPIED = 200_000_000
"""Beyond so many weights no copy in bf16 is made, and of the others only the base answers."""
_LONG = 6000
_TEXT = "Prices rose 12.5 % in 2024: naïve café, déjà vu; 東京 (Tokyo), 😀\n\tx_1 = f(y) -- O'Neil's \"quote\".  Two  blanks."


@dataclass(frozen=True, slots=True)
class _Voice:
    """A model that may be asked, and what must be entered for it."""

    name: str
    model: nn.Module
    around: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True)
class _Asked:
    messages: tuple[Message, ...]
    prompt: list[int]
    answer: list[int]


def make_contract(
    model: Any, *, base: nn.Module | None, chat: ChatFormat, records: Sequence[Record], max_length: int
) -> Contract | None:
    """Ask a tuned model about a few of its training rows.

    Args:
        model: a whole model, or one with an adapter.
        base: of a whole model, if it had one and it is there. An adapter's is the model with the adapter off.
        chat: tokenizer and template.
        records: rows that it was trained on.
        max_length: its context in tokens.

    Returns:
        The contract, or None where there is no conversation to be asked about.
    """
    asked = _choose(records, chat=chat, max_length=max_length)
    if not asked:
        return None
    model.eval()
    voices = list(_voices(model, base))
    room = max_length - max(len(one.prompt) for one in asked)
    limit = max(1, min(96, 2 * max(len(one.answer) for one in asked) + 16, room))
    answers = _answers(_Voice("", model), asked, chat=chat, limit=limit)
    is_small = sum(parameter.numel() for parameter in model.parameters()) <= _MOST_COPIED
    answering = [voice for voice in voices if voice.name == BASE or (is_small and voice.name != BF16)]
    by_others = {voice.name: _answers(voice, asked, chat=chat, limit=limit) for voice in answering}
    long_text, long_count = _long(chat, max_length=max_length)
    return Contract(
        template=chat.digest,
        stop_tokens=chat.stop_tokens,
        stop_texts=tuple(chat.decode([token], keep_control=True) for token in chat.stop_tokens),
        bos=chat.bos_token,
        begins_with_bos=chat.bos_token is not None and asked[0].prompt[0] == chat.bos_token,
        max_length=max_length,
        max_new_tokens=limit,
        number_format=str(next(model.parameters()).dtype).removeprefix("torch."),
        text=_TEXT,
        text_tokens=tuple(chat.encode_text(_TEXT, begun=False)),
        long_text=long_text,
        long_count=long_count,
        probes=tuple(
            _probe(
                one,
                model=model,
                voices=voices,
                chat=chat,
                answer=answers[i],
                ends=len(answers[i]) < limit,
                other_texts={name: chat.decode(said[i]).strip() for name, said in by_others.items()},
            )
            for i, one in enumerate(asked)
        ),
    )


def contract_of(saved: Saved, *, chat: ChatFormat, records: Sequence[Record], max_length: int) -> Contract | None:
    """Load what was saved, and make its contract; see `make_contract`."""
    machine = proving_machine()
    model = load_version(saved.folder, base=saved.base, machine=machine)
    base = load_model(saved.base, machine=machine) if saved.base is not None and not saved.is_adapter else None
    return make_contract(model, base=base, chat=chat, records=records, max_length=max_length)


def _choose(records: Sequence[Record], *, chat: ChatFormat, max_length: int) -> list[_Asked]:
    """Short conversations with unlike answers; the shortest where all are long."""
    found = []
    for record in records:
        learned = [] if record.tools else learned_answers(record)
        messages = record.messages[: learned[0]] if learned else ()
        if not messages or any(message.role is Role.TOOL for message in messages):
            continue
        prompt = chat.encode_prompt(messages)
        for sequence in encode([record], chat=chat, max_length=1 << 20).sequences:
            number = learned_after(prompt, sequence, stops=chat.stop_tokens)
            if number and len(prompt) + number < max_length:
                answer = sequence.tokens[len(prompt) : len(prompt) + number].tolist()
                found.append(_Asked(messages, prompt, answer))
                break
    found.sort(key=lambda one: len(one.prompt) + len(one.answer))
    short = [one for one in found if len(one.prompt) + len(one.answer) <= _LONGEST] or found[:1]
    unlike = list({tuple(one.answer): one for one in short}.values())
    if len(unlike) < _NUM_PROBES:  # a classification has few answers, and other questions ask for the same ones
        again = [one for one in short if one not in unlike]
        return [*unlike, *again[-(_NUM_PROBES - len(unlike)) :]]
    step = max(1, len(unlike) // _NUM_PROBES)
    return unlike[::step][:_NUM_PROBES]


def _voices(model: Any, base: nn.Module | None) -> Iterator[_Voice]:
    if is_adapter(model):
        yield _Voice(BASE, model, partial(adapter_disabled, model))
        for scale in _SCALES:
            yield _Voice(f"{SCALED}{scale:g}", model, partial(adapter_scaled, model, scale))
    elif base is not None:
        yield _Voice(BASE, base.eval())
    parameters = list(model.parameters())
    if sum(parameter.numel() for parameter in parameters) <= _MOST_COPIED and parameters[0].dtype == torch.float32:
        yield _Voice(BF16, deepcopy(model).to(torch.bfloat16))


def _answers(voice: _Voice, asked: Sequence[_Asked], *, chat: ChatFormat, limit: int) -> list[list[int]]:
    sampling = Sampling(max_new_tokens=limit)
    with voice.around():
        return [generate(voice.model, [one.prompt], sampling=sampling, stop_tokens=chat.stop_tokens)[0] for one in asked]


def _probe(
    one: _Asked,
    *,
    model: nn.Module,
    voices: Sequence[_Voice],
    chat: ChatFormat,
    answer: list[int],
    ends: bool,
    other_texts: dict[str, str],
) -> Probe:
    places = score_tokens(model, [*one.prompt, *answer, chat.stop_tokens[0]], num_top=2)[len(one.prompt) - 1 :]
    told = score_tokens(model, [*one.prompt, *one.answer], num_top=1)[len(one.prompt) - 1 :]
    return Probe(
        messages=tuple((message.role.value, message.content) for message in one.messages),
        prompt=tuple(one.prompt),
        prompt_text=chat.decode(one.prompt, keep_control=True),
        answer=_spoken(one.prompt, one.answer, model=model, voices=voices, chat=chat),
        likeliest=tuple(score.top[0][0] == token for score, token in zip(told, one.answer, strict=True)),
        greedy=_spoken(one.prompt, answer, model=model, voices=voices, chat=chat),
        greedy_text=chat.decode(answer).strip(),
        margins=tuple(score.top[0][1] - score.top[1][1] for score in places),
        ends=ends,
        other_texts=other_texts,
    )


def _spoken(prompt: list[int], answer: list[int], *, model: nn.Module, voices: Sequence[_Voice], chat: ChatFormat) -> Spoken:
    others = {}
    for voice in voices:
        with voice.around():
            others[voice.name] = _values(voice.model, prompt, answer)
    # How an answer's text grows, for a token may hold only a part of a character.
    grown = [chat.decode(answer[:i]) for i in range(len(answer) + 1)]
    return Spoken(
        tokens=tuple(answer),
        texts=tuple(after[len(before) :] for before, after in pairwise(grown)),
        log_likelihoods=_values(model, prompt, answer),
        others=others,
    )


def _values(model: nn.Module, prompt: list[int], answer: list[int]) -> tuple[float, ...]:
    return tuple(score.log_likelihood for score in score_tokens(model, [*prompt, *answer])[len(prompt) - 1 :])


def _long(chat: ChatFormat, *, max_length: int) -> tuple[str, int]:
    """A message whose prompt nearly fills the context."""
    target = min(max_length - 2, _LONG)

    def count(words: int) -> int:
        return len(chat.encode_prompt([Message(role=Role.USER, content=" ".join(["again"] * words))]))

    low, high = 1, target
    while low < high:  # the most words that still fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(middle) <= target else (low, middle - 1)
    return " ".join(["again"] * low), count(low)
