"""Holds a server, ours or anybody's, to a version's contract, and says in plain words what differs.

From what a server tells most exactly to what it tells least: token ids, then numbers of tokens; log-likelihoods of given ids, then those of
its own answers; greedy answers. What a server cannot be asked is not tried, and counts neither way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tunesmith.data.contract import Contract, Probe, Spoken
from tunesmith.evaluate.drift import as_other, measure_drift
from tunesmith.evaluate.server import ChatAnswer, Server
from tunesmith.records import Message, Proof, Role

__all__ = ["WEIGHTS", "prove_server"]

_TIE = 0.1
"""Nats between two tokens: below, rounding may choose either, and the answers part without a fault."""
_FEWEST = 4
"""Tokens from which likelihoods of a server's own answers say something."""

TOKENIZER, PROMPTS, WEIGHTS = "its tokenizer = the version's", "its prompts = the version's", "its weights = the version's"
ANSWERS, ENDS, CONTEXT = "its answers = the version's", "it ends its turn", "its context = the version's"
_MEANINGS = {
    TOKENIZER: "A text becomes the very tokens there that the model learned to read.",
    PROMPTS: "A conversation is laid out there as in training, token by token.",
    WEIGHTS: "The weights that answer there are this version's, adapter and all.",
    ANSWERS: "The same question has the same answer there.",
    ENDS: "It stops there when its answer is complete.",
    CONTEXT: "Conversations as long as here are read there from their beginning.",
}


@dataclass(slots=True)
class _State:
    """What was found out on the way, for the proofs that come after."""

    contract: Contract
    server: Server
    tolerance: float | None
    answers: list[ChatAnswer | str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    more_tokens: int = 0
    """By how many tokens every prompt of the server is longer."""


def prove_server(
    contract: Contract, server: Server, *, on_proof: Callable[[Proof], None] = lambda _: None, tolerance: float | None = None
) -> list[Proof]:
    """Ask a server all that it can be asked.

    Args:
        contract: what the version says.
        server: opened.
        on_proof: hears each result as it comes.
        tolerance: nats per token between likelihoods; None takes three times what bf16 makes of this model.

    Raises:
        EndpointError: the server breaks off.
    """
    state = _State(contract, server, tolerance)
    for probe in contract.probes:
        state.answers.append(server.chat(probe.as_messages(), max_tokens=contract.max_new_tokens, with_likelihoods=True))
    proofs = []
    for attempt in (_tokenizer, _prompts, _weights, _answers, _ends, _context):
        proof = attempt(state)
        if proof.holds is False:
            state.failed.add(proof.name)
        proofs.append(proof)
        on_proof(proof)
    return proofs


def _proof(name: str, compared: str, holds: bool | None, *, figure: float | None = None, tolerance: float = 0.0) -> Proof:
    tried = holds is not None
    return Proof(
        name=name,
        meaning=_MEANINGS[name],
        compared=compared,
        holds=holds,
        figure=figure if tried else None,
        tolerance=tolerance if tried else None,
    )


def _tokenizer(state: _State) -> Proof:
    contract = state.contract
    expected = list(contract.text_tokens)
    if (tokens := state.server.text_tokens(contract.text)) is not None:
        if tokens == expected:
            return _proof(
                TOKENIZER, f"the {len(expected)} token ids of a text with digits, accents, signs and blanks", True, figure=0.0
            )
        differ = sum(a != b for a, b in zip(tokens, expected, strict=False)) + abs(len(tokens) - len(expected))
        compared = (
            f"another tokenizer: a text of {len(expected)} tokens here has {len(tokens)} there, and {differ} of them differ"
        )
        return _proof(TOKENIZER, compared, False, figure=float(differ))
    if (count := state.server.count_text(contract.text)) is None:
        return _proof(TOKENIZER, "not tried: the server tells no tokens of a plain text", None)
    more = count - len(expected)
    if more == 0 or (more == 1 and contract.bos is not None):
        return _proof(TOKENIZER, f"a text has {count} tokens there as here; the server tells no ids", True, figure=0.0)
    compared = f"another tokenizer: a text of {len(expected)} tokens here has {count} there"
    return _proof(TOKENIZER, compared, False, figure=float(abs(more)))


def _prompts(state: _State) -> Proof:
    contract, found = state.contract, []
    for probe in contract.probes:
        tokens = state.server.prompt_tokens(probe.as_messages())
        if tokens is None:
            return _prompts_by_count(state)
        found.append(tokens)
    wrong = [(there, probe) for there, probe in zip(found, contract.probes, strict=True) if there != list(probe.prompt)]
    state.more_tokens = len(found[0]) - len(contract.probes[0].prompt)
    if not wrong:
        return _proof(PROMPTS, f"the token ids of {len(found)} conversations", True, figure=0.0)
    there, probe = wrong[0]
    compared = f"{_ids_in_words(there, probe, state)} ({len(wrong)} of {len(found)} conversations)"
    return _proof(PROMPTS, compared, False, figure=float(len(wrong)))


def _ids_in_words(there: list[int], probe: Probe, state: _State) -> str:
    here, bos = list(probe.prompt), state.contract.bos
    if TOKENIZER in state.failed:
        return "the ids differ, as the tokenizer does"
    if bos is not None and there == [bos, *here]:
        return _one_bos_more(state.contract)
    if bos is not None and here == [bos, *there]:
        return "the BOS is missing in front of the conversation"
    if len(there) < len(here) and here[-len(there) :] == there:
        return f"the conversation is cut: {len(here) - len(there)} tokens at its beginning are missing"
    place = next((i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    return (
        f"another template: {len(there)} tokens there, {len(here)} here, and from the {place + 1}. on they differ; "
        f"training saw {probe.prompt_text[:120]!r}"
    )


def _one_bos_more(contract: Contract) -> str:
    if contract.begins_with_bos:
        return "double BOS: the server puts one in front of the one that the template prints"
    return "a BOS stands in front of the conversation that was not there in training"


def _prompts_by_count(state: _State) -> Proof:
    contract = state.contract
    counts = [answer.num_prompt_tokens if isinstance(answer, ChatAnswer) else None for answer in state.answers]
    more = [count - len(probe.prompt) for count, probe in zip(counts, contract.probes, strict=True) if count is not None]
    if len(more) < len(counts):
        return _proof(PROMPTS, "not tried: the server tells neither the tokens of a conversation nor how many they are", None)
    figure = float(sum(map(bool, more)))
    if not any(more):
        compared = f"{len(more)} conversations have as many tokens there as here; the server tells no ids"
        return _proof(PROMPTS, compared, True, figure=0.0)
    if TOKENIZER in state.failed:
        return _proof(PROMPTS, "the numbers of tokens differ, as the tokenizer does", False, figure=figure)
    if len(set(more)) > 1:
        compared = f"another template or another tokenizer: prompts have {min(more):+d} to {max(more):+d} tokens there"
        return _proof(PROMPTS, compared, False, figure=figure)
    state.more_tokens = more[0]
    why = "another template"
    if more[0] == 1 and contract.bos is not None:
        why = f"{_one_bos_more(contract)}; or another template"
    elif more[0] == -1 and contract.begins_with_bos:
        why = "the BOS is missing in front of the conversation; or another template"
    return _proof(PROMPTS, f"{why}: each prompt has {more[0]:+d} tokens there", False, figure=figure)


def _weights(state: _State) -> Proof:
    pairs, how, fewest = _given_ids(state), "answers of training, given as token ids", 1
    if pairs is None:
        if state.failed & {TOKENIZER, PROMPTS}:
            return _proof(WEIGHTS, "not tried: likelihoods can be had of its own answers only, and it reads other prompts", None)
        pairs, how, fewest = _of_its_answers(state), "its own answers, as far as they are the version's", _FEWEST
    found = [value for values, _, _ in pairs for value in values]
    if len(found) < fewest:
        return _proof(WEIGHTS, "not tried: the server tells no likelihoods of tokens that are the version's too", None)
    expected = [value for _, spoken, places in pairs for value in _at(spoken.log_likelihoods, places)]
    names = set.intersection(*(set(spoken.others) for _, spoken, _ in pairs))
    others = {name: [value for _, spoken, places in pairs for value in _at(spoken.others[name], places)] for name in names}
    drift = measure_drift(found, expected, others, tolerance=state.tolerance, stored_as=state.server.quantisation())
    return _proof(WEIGHTS, f"{drift.words} ({how})", drift.holds, figure=drift.nats, tolerance=drift.tolerance)


_Pair = tuple[list[float], Spoken, list[int]]
"""A server's likelihoods, what they are of, and at which places of it."""


def _given_ids(state: _State) -> list[_Pair] | None:
    pairs: list[_Pair] = []
    for probe in state.contract.probes:
        values = state.server.log_likelihoods([*probe.prompt, *probe.answer.tokens])
        if values is None:
            return None
        number = len(probe.answer.tokens)
        pairs.append((values[-number:], probe.answer, list(range(number))))
    return pairs


def _of_its_answers(state: _State) -> list[_Pair]:
    """Token by token as long as the answers are the same; where they part, the version's token among the likeliest, if it is."""
    pairs: list[_Pair] = []
    for answer, probe in zip(state.answers, state.contract.probes, strict=True):
        if not isinstance(answer, ChatAnswer) or answer.tokens is None:
            continue
        values: list[float] = []
        for said, text in zip(answer.tokens, probe.greedy.texts, strict=False):
            if said.text == text:
                values.append(said.log_likelihood)
                continue
            if text in said.top:
                values.append(said.top[text])
            break
        pairs.append((values, probe.greedy, list(range(len(values)))))
    return pairs


def _at(values: Sequence[float], places: Sequence[int]) -> list[float]:
    return [values[place] for place in places]


def _answers(state: _State) -> Proof:
    probes, refused = state.contract.probes, [answer for answer in state.answers if isinstance(answer, str)]
    if refused:
        return _proof(ANSWERS, f"it refuses a conversation: {refused[0]}", False, figure=float(len(refused)))
    given = [answer for answer in state.answers if isinstance(answer, ChatAnswer)]
    wrong = [(answer.text, probe) for answer, probe in zip(given, probes, strict=True) if not _is_same(answer.text, probe)]
    if not wrong:
        return _proof(ANSWERS, f"greedy answers to {len(probes)} questions of its training rows", True, figure=0.0)
    text, probe = wrong[0]
    others = [name for name in probe.other_texts if all(text == probe.other_texts.get(name) for text, probe in wrong)]
    if others:
        why = as_other(others[0])
    elif state.failed:
        why = "they differ, as follows from what differs above"
    else:
        why = "they differ"
    compared = f"{why}; {len(wrong)} of {len(probes)}, such as {text[:60]!r} in place of {probe.greedy_text[:60]!r}"
    return _proof(ANSWERS, compared, False, figure=float(len(wrong)))


def _is_same(text: str, probe: Probe) -> bool:
    """Equal, or running on after its end (another proof's matter), or parted where two tokens were as likely."""
    own = probe.greedy_text
    if text == own or (probe.ends and own and text.startswith(own)):
        return True
    shared = next((i for i, (a, b) in enumerate(zip(text, own, strict=False)) if a != b), min(len(text), len(own)))
    ends = list(accumulate(map(len, probe.greedy.texts)))
    place = next((i for i, end in enumerate(ends) if end > shared), len(ends))
    return place < len(probe.margins) and probe.margins[place] < _TIE


def _ends(state: _State) -> Proof:
    contract = state.contract
    asked = [
        (answer, probe)
        for answer, probe in zip(state.answers, contract.probes, strict=True)
        if isinstance(answer, ChatAnswer) and probe.ends and probe.greedy_text and answer.text.startswith(probe.greedy_text)
    ]
    if not asked:
        return _proof(ENDS, "not tried: no answer there begins as one that ended here", None)
    running = [answer for answer, probe in asked if answer.text != probe.greedy_text or answer.finish_reason == "length"]
    if not running:
        return _proof(ENDS, f"{len(asked)} answers end there where they end here", True, figure=0.0)
    stops = " or ".join(map(repr, contract.stop_texts))
    compared = (
        f"missing EOS: {len(running)} of {len(asked)} answers run on after their end; the server does not stop at {stops} "
        f"(ids {', '.join(map(str, contract.stop_tokens))}), such as {running[0].text[-80:]!r}"
    )
    return _proof(ENDS, compared, False, figure=float(len(running)))


def _context(state: _State) -> Proof:
    contract, told = state.contract, state.server.max_length
    if told is not None and told < contract.max_length:
        compared = f"truncated context: {told:,} tokens there, {contract.max_length:,} here"
        return _proof(CONTEXT, compared, False, figure=float(contract.max_length - told))
    if state.failed & {TOKENIZER} or contract.long_count + max(state.more_tokens, 0) >= contract.max_length:
        return _proof(CONTEXT, "not tried: it reads a conversation that fills the context here in more tokens", None)
    answer = state.server.chat([Message(role=Role.USER, content=contract.long_text)], max_tokens=1)
    if isinstance(answer, str):
        return _proof(CONTEXT, f"truncated context: a conversation of {contract.long_count:,} tokens is refused: {answer}", False)
    if answer.num_prompt_tokens is None:
        return _proof(CONTEXT, "not tried: the server does not tell how many tokens it read", None)
    missing = contract.long_count + state.more_tokens - answer.num_prompt_tokens
    if missing > 0:
        compared = (
            f"truncated context, unsaid: of a conversation of {contract.long_count:,} tokens it read {answer.num_prompt_tokens:,}"
        )
        return _proof(CONTEXT, compared, False, figure=float(missing))
    return _proof(CONTEXT, f"a conversation of {contract.long_count:,} tokens is read whole", True, figure=0.0)
