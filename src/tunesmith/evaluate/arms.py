"""What evaluation asks of a model: answers and likelihoods, as plain values.

An arm is whatever is judged: the base, the tuned version, the base with examples in its prompt, another's endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from tunesmith.records import Message, Record

__all__ = ["Answered", "Answering", "Arm", "Likelihood", "Usage"]


class Likelihood(NamedTuple):
    """How likely an arm finds one row, summed over the row's supervised tokens.

    Sums, never means: a mean of batch means depends on the batch size, a sum of row sums does not.
    """

    nll: float
    """Negative log-likelihood in nats; infinite (or NaN, read as infinite) where the model gives no probability."""
    num_tokens: int
    """Supervised tokens. 0 (nothing left after truncation) leaves the row out for every arm."""
    num_bytes: int
    """UTF-8 bytes of the supervised text, which do not depend on the tokenizer."""


class Answered(NamedTuple):
    """An answer, and whether its arm ended it."""

    text: str
    has_ended: bool | None
    """False: it was cut at the most tokens that it might have. None: the arm does not tell."""


class Usage(NamedTuple):
    """What one answer took; None where it is not known."""

    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    seconds: float | None = None
    """From the question to the whole answer; None where several were answered at once."""


class Answering(Protocol):
    """A model that can be asked. An arm may tell in `last_usage`, a list of `Usage`, what its last answers took."""

    def generate(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[str]:
        """One answer for each conversation, which ends before the answer wanted.

        Args:
            conversations: each with its last question.
            tools: those that each offers, as `Record.tools` has them; empty where none offers any.
        """
        ...


@runtime_checkable
class Arm(Answering, Protocol):
    """One model under test. The figures of a row must not depend on the rows or padding it is batched with."""

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        """One likelihood for each record."""
        ...
