"""Proof of the data's side: the model is trained on the very tokens that it is asked with, and learns where to stop."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import Sequence as Encoding
from tunesmith.data.pack import encode
from tunesmith.records import Proof, Record, Role
from tunesmith.train.proofs_measure import EXACT

__all__ = ["learned_after", "learned_answers", "prove_tokens"]

_ANY_LENGTH = 1 << 20


def prove_tokens(records: Sequence[Record], *, chat: ChatFormat | None) -> Proof:
    """Conversations as training reads them, against the prompts that serving would send for each of their answers."""
    conversations = [record for record in records if learned_answers(record)]
    name = "tokens at training = tokens at serving"
    meaning = (
        "It is asked with the very tokens it was trained on, and every answer it learned ends with the token at which it stops."
    )
    if chat is None or not conversations:
        return Proof(name=name, meaning=meaning, compared="there are no conversations", holds=None)
    wrong = [record for record in conversations if not _is_learned_as_asked(record, chat=chat)]
    first = f", the first at {wrong[0].source}" if wrong else ""
    return Proof(
        name=name,
        meaning=meaning,
        compared=f"{len(conversations)} conversations, answer by answer: the prompt before it, the end-of-turn token after it, "
        f"nothing else learned; counted are those that differ{first}",
        figure=float(len(wrong)),
        tolerance=EXACT,
        holds=not wrong,
    )


def learned_answers(record: Record) -> list[int]:
    """Places of the messages of a record that are learned."""
    return [i for i, message in enumerate(record.messages) if message.role is Role.ASSISTANT and message.weight > 0]


def _is_learned_as_asked(record: Record, *, chat: ChatFormat) -> bool:
    """Whether each answer stands after the prompt of serving, is learned up to a token that ends it, and nothing else is."""
    encoded = encode([record], chat=chat, max_length=_ANY_LENGTH)
    num_learned = 0
    for i in learned_answers(record):
        prompt = chat.encode_prompt(record.messages[:i], tools=record.tools)
        lengths = [learned_after(prompt, sequence, stops=chat.stop_tokens) for sequence in encoded.sequences]
        if not any(lengths):
            return False
        num_learned += max(lengths)
    return num_learned == encoded.num_supervised


def learned_after(prompt: Sequence[int], sequence: Encoding, *, stops: Sequence[int]) -> int:
    """How many tokens after a prompt are learned, the one that ends the answer included; 0 when it is not so."""
    tokens, targets = sequence.tokens.tolist(), sequence.targets.tolist()
    if tokens[: len(prompt)] != prompt:
        return 0
    for place in range(len(prompt) - 1, len(tokens) - 1):
        if targets[place] != tokens[place + 1]:
            return 0
        if targets[place] in stops:
            return place - len(prompt) + 2
    return 0
