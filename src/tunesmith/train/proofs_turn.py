"""Proof that a model stops: the token that ends an answer is learned as the rest of the answer is."""

from __future__ import annotations

from tunesmith.data.contract import Contract
from tunesmith.records import Proof

__all__ = ["prove_ends"]

_NAME = "ends its turn"
_MEANING = "The model stops when its answer is complete, and does not run on."
_HALF = 0.5
_LEARNED = 0.75


def prove_ends(contract: Contract | None) -> Proof:
    """After the answers that it learned the end is the likeliest token, and its own answers end: half of them at least.

    A model that has hardly learned its answers is not blamed for their ends: three quarters of the answers' other tokens must be the
    likeliest in their places for that.
    """
    if contract is None:
        return Proof(name=_NAME, meaning=_MEANING, compared="there are no conversations", holds=None)
    others = [right for probe in contract.probes for right in probe.likeliest[:-1]]
    known = sum(others) / max(len(others), 1)
    ends = sum(probe.likeliest[-1] for probe in contract.probes) / len(contract.probes)
    own = sum(probe.ends for probe in contract.probes) / len(contract.probes)
    compared = (
        f"{len(contract.probes)} training answers: after {ends:.0%} of them the token that ends a turn is the likeliest, as are "
        f"{known:.0%} of their other tokens in their places; {own:.0%} of its own answers end within {contract.max_new_tokens} tokens"
    )
    figure = min(ends, own)
    if figure < _HALF and known < _LEARNED:
        unlearned = f"{compared}. It has hardly learned the answers, so their ends prove nothing"
        return Proof(name=_NAME, meaning=_MEANING, compared=unlearned, holds=None)
    return Proof(
        name=_NAME, meaning=_MEANING, compared=compared, figure=figure, tolerance=_HALF, rule="at least", holds=figure >= _HALF
    )
