"""The verdicts of an export's proofs, from what the process that reads it answered; no model, no process."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tunesmith.errors import TunesmithError
from tunesmith.pipeline import export_proofs
from tunesmith.pipeline.export_proofs import Probes, prove_export
from tunesmith.records import Proof

SOUND: dict[str, Any] = {
    "imports": {"tunesmith": []},
    "tokens": {"num": 20, "wrong": 0},
    "answers": {"num": 300, "max": 0.0, "mean": 0.0},
}
GGUF = {"to": "gguf", "type": "q8_0"}
TOKENS, ANSWERS, MOVED = "exported tokens = training tokens", "exported = library", "adapter ≠ base"
WEIGHTS, HEADER = "weights = the version's, rounded once", "stated shape = the model's"


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Proofs by name, of an answer with some parts changed."""

    def prove(task: dict[str, Any], **parts: Any) -> dict[str, Proof]:
        monkeypatch.setattr(export_proofs, "_ask", lambda _: SOUND | parts)
        return {proof.name: proof for proof in prove_export(task, probes=Probes(chats=(), rows=()), log_likelihoods=())}

    return prove


def answers(**figures: float) -> dict[str, Any]:
    return {"num": 300, "max": 0.0, "mean": 0.0, **figures}


@pytest.mark.parametrize("wrong", [0, 1])
def test_one_conversation_of_other_tokens_is_too_many(proved: Any, wrong: int) -> None:
    proof = proved(GGUF, tokens={"num": 20, "wrong": wrong})[TOKENS]
    assert (proof.holds, proof.figure, f"{wrong} become other ids" in proof.compared) == (not wrong, wrong, True)


@pytest.mark.parametrize(
    ("task", "bound", "counts"),
    [
        ({"to": "adapter", "type": "f32"}, 1e-4, "max"),
        ({"to": "onnx", "type": "f32"}, 1e-3, "max"),
        ({"to": "merged", "type": "f32"}, 1e-4, "max"),
        ({"to": "gguf", "type": "f32"}, 1e-4, "max"),
        ({"to": "gguf", "type": "f16"}, 5e-3, "mean"),
        ({"to": "merged", "type": "bf16"}, 5e-2, "mean"),
        (GGUF, 5e-2, "mean"),
    ],
)
def test_likelihoods_may_be_so_far_apart_at_worst_or_on_average(
    proved: Any, task: dict[str, Any], bound: float, counts: str
) -> None:
    other = "mean" if counts == "max" else "max"
    just, beyond = (proved(task, answers=answers(**{counts: bound * factor}))[ANSWERS] for factor in (0.99, 1.01))
    assert (just.holds, beyond.holds, just.tolerance, just.rule) == (True, False, bound, "at most")
    assert proved(task, answers=answers(**{other: 10 * bound}))[ANSWERS].holds, "the other figure is told and does not decide"


def test_an_adapter_that_moves_nothing_is_not_in_use(proved: Any) -> None:
    task = {"to": "adapter", "type": "f32"}
    for moved, holds in ((0.0, False), (0.9e-4, False), (1.1e-4, True)):
        proof = proved(task, answers=answers(moved=moved))[MOVED]
        assert (proof.holds, proof.rule) == (holds, "at least")
    assert MOVED not in proved(task), "a merged model is asked nothing of an adapter"


@pytest.mark.parametrize(
    ("kind", "found", "holds"),
    [
        ("f32", {"apart": 0.9e-6}, True),
        ("f32", {"apart": 1.1e-6}, False),
        ("f16", {"num": 10_000, "different": 9, "beyond": 0}, True),
        ("f16", {"num": 10_000, "different": 11, "beyond": 0}, False),
        ("q8_0", {"num": 10_000, "different": 0, "beyond": 1}, False),
        ("f16", {"num": 0, "different": 0, "beyond": 0}, True),
    ],
)
def test_few_weights_may_be_the_neighbouring_number_and_none_another(
    proved: Any, kind: str, found: dict[str, Any], holds: bool
) -> None:
    assert proved({"to": "gguf", "type": kind}, weights=found)[WEIGHTS].holds is holds


def test_a_stated_entry_that_differs_is_named(proved: Any) -> None:
    proof = proved(GGUF, header={"num": 30, "wrong": 1, "names": ["llama.rope.freq_base"]})[HEADER]
    assert (proof.holds, "1 differ: llama.rope.freq_base" in proof.compared) == (False, True)
    assert proved(GGUF, header={"num": 30, "wrong": 0, "names": []})[HEADER].holds


@pytest.mark.parametrize(("part", "name"), [("tokens", TOKENS), ("answers", ANSWERS), ("weights", WEIGHTS), ("header", HEADER)])
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_what_could_not_be_compared_does_not_hold(proved: Any, part: str, name: str, kind: str) -> None:
    task = {"to": "gguf", "type": kind}
    proof = proved(task, **{part: {"error": "no such tensor"}})[name]
    assert (proof.holds, "no such tensor" in proof.compared) == (False, True)
    assert (
        proved(task, **{part: {"num": 3, "beyond": 0, "different": math.nan, "max": math.nan, "mean": math.nan}})[name].holds
        is False
    )


def test_a_process_that_has_loaded_tunesmith_proves_nothing(proved: Any) -> None:
    with pytest.raises(TunesmithError, match=r"has loaded tunesmith\.model"):
        proved(GGUF, imports={"tunesmith": ["tunesmith.model"]})
