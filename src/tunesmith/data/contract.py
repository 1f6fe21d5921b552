"""What a version says, kept so that whoever serves it can be held to it: prompts, tokens, likelihoods, answers, and where it stops.

`train` makes a contract, and `evaluate` holds a server to it. To read one takes no model and no tokenizer. Likelihoods are in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from pydantic import TypeAdapter

from tunesmith.records import Message, Role

__all__ = ["BASE", "BF16", "SCALED", "Contract", "Probe", "Spoken", "read_contract", "write_contract"]

BASE = "base"
"""Among `Spoken.others`: the model before training."""
BF16 = "bf16"
"""The same model computed in bf16: what rounding alone may do."""
SCALED = "x "
"""The adapter counted so many times, such as `x 0.5`."""

_FILE = "contract.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Tokens after a prompt, with what the version, and others, say of each."""

    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    """Each token's text by itself."""
    log_likelihoods: tuple[float, ...]
    others: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One conversation up to an answer."""

    messages: tuple[tuple[str, str], ...]
    """Role and content."""
    prompt: tuple[int, ...]
    prompt_text: str
    answer: Spoken
    """The answer of the training row, with the token that ends it."""
    likeliest: tuple[bool, ...]
    """Whether each of the answer's tokens is the likeliest in its place."""
    greedy: Spoken
    """The model's own answer, without the token that ends it."""
    greedy_text: str
    margins: tuple[float, ...]
    """By how much each token of the own answer, and what follows it, is likelier than the next."""
    ends: bool
    """Whether the own answer ended within the limit."""
    other_texts: Mapping[str, str]
    """What the base, and the adapter counted otherwise, answer."""

    def as_messages(self) -> list[Message]:
        """The conversation, to be asked."""
        return [Message(role=Role(role), content=content) for role, content in self.messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """All that is kept of a version."""

    template: str
    """Digest of tokenizer and template."""
    stop_tokens: tuple[int, ...]
    stop_texts: tuple[str, ...]
    bos: int | None
    begins_with_bos: bool
    """Whether a BOS belongs in front of a conversation."""
    max_length: int
    max_new_tokens: int
    """Of the own answers."""
    number_format: str
    text: str
    """A text that tokenizers cut in different ways."""
    text_tokens: tuple[int, ...]
    """Without what the tokenizer puts in front."""
    long_text: str
    """A user's message that nearly fills the context, or 6,000 tokens of it."""
    long_count: int
    """Tokens of its prompt."""
    probes: tuple[Probe, ...]


_ADAPTER = TypeAdapter(Contract)


def write_contract(contract: Contract, folder: Path) -> None:
    """Keep a contract in a folder."""
    (folder / _FILE).write_bytes(orjson.dumps({"schema": 1, **asdict(contract)}))


def read_contract(folder: Path) -> Contract | None:
    """What was kept there; None where there is none."""
    file = folder / _FILE
    if not file.is_file():
        return None
    content = orjson.loads(file.read_bytes())
    del content["schema"]
    return _ADAPTER.validate_python(content)
