"""How a model reads the tokens of many requests: all in one pass over slots, or, where its design forbids that, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tunesmith.errors import ModelError
from tunesmith.model.forward import is_same_reading
from tunesmith.model.kv_slots import KeyValueSlots, Part, Step, attending
from tunesmith.model.lean import LeanDecoder
from tunesmith.model.lean_products import Packing
from tunesmith.model.lean_shapes import lean_decoder
from tunesmith.model.prefixes import Layers

__all__ = ["Reader", "Together", "reader_for"]


class Reader(Protocol):
    """Reads a step's row and remembers it."""

    def read(self, step: Step, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Logits (P, V) at the places, counted in the row of all tokens."""
        ...

    def reserve(self, *, num_slots: int, capacity: int) -> None: ...

    def bytes_for(self, num_slots: int, capacity: int) -> int:
        """Memory that so many slots of so many tokens take."""
        ...

    def move(self, source: int, target: int, *, num_tokens: int) -> None: ...

    def release(self, slot: int) -> None: ...


MOST_BY_INT8 = 0.1
"""By how much int8 may move the logits of a trial on average, as a share of their spread."""
_read_together: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_lean_agrees: WeakKeyDictionary[nn.Module, dict[Packing, bool]] = WeakKeyDictionary()


def reader_for(model: nn.Module, *, packing: Packing = "none") -> Reader:
    """The fastest reader that gives this model's own logits, found by a trial.

    Args:
        model: a transformers causal model.
        packing: see `lean_decoder`.

    Raises:
        ModelError: int8 of a model for which it is not known, or which it moves too far.
    """
    if model not in _read_together:
        _read_together[model] = _agrees(_trial(Together(model), model))
    if not _read_together[model] and packing != "int8":
        return OneByOne(model)
    lean = lean_decoder(model, packing=packing)
    return Together(model) if lean is None or not _is_lean(model, lean, packing) else Together(model, lean=lean)


def _is_lean(model: nn.Module, lean: LeanDecoder, packing: Packing) -> bool:
    """Whether the lean decoder gives the model's own logits; tried once."""
    tried = _lean_agrees.setdefault(model, {})
    if packing not in tried:
        trial = _trial(Together(model, lean=lean), model)
        if packing == "int8" and trial is not None and (moved := int8_error(*trial)) > MOST_BY_INT8:
            raise ModelError(
                f"in int8 this model's logits move by {moved:.0%} of their spread; more than {MOST_BY_INT8:.0%} is too much. Choose fp32"
            )
        tried[packing] = trial is not None and (packing == "int8" or _agrees(trial))
    return tried[packing]


def int8_error(found: Tensor, expected: Tensor) -> float:
    """How far logits have moved on average, as a share of their spread."""
    return float((found.float() - expected.float()).abs().mean() / expected.float().std())


class Together:
    """All requests in one pass, over `KeyValueSlots`. What was read of a beginning can be taken out and put into another slot."""

    def __init__(self, model: nn.Module, *, lean: LeanDecoder | None = None) -> None:
        """Take a model, to be read by its own code or by a decoder that is known to do the same."""
        self._model: Any = model
        self._lean = lean
        self._device = next(model.parameters()).device
        self._slots = KeyValueSlots()
        self._bytes_per_token = 0

    @property
    def is_lean(self) -> bool:
        return self._lean is not None

    def read(self, step: Step, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """One pass."""
        if self._lean is not None:
            return self._lean.read(self._slots, step, tokens, places)
        row_1T = torch.tensor([list(tokens)], device=self._device)
        kept_P = torch.tensor(list(places), device=self._device, dtype=torch.long)
        with attending(self._model, self._slots, step):
            logits_1PV = self._model(
                input_ids=row_1T, position_ids=step.positions(), use_cache=False, logits_to_keep=kept_P
            ).logits
        return _at(logits_1PV, kept_P)

    def reserve(self, *, num_slots: int, capacity: int) -> None:
        """Make room."""
        self._slots.reserve(num_slots=num_slots, capacity=capacity)

    def bytes_for(self, num_slots: int, capacity: int) -> int:
        """Of keys and values, as the storage grows: by doubling."""
        if not self._bytes_per_token:
            self._bytes_per_token = _bytes_per_token(self._model)
        return self._bytes_per_token * self._slots.size_for(num_slots=num_slots, capacity=capacity)

    def move(self, source: int, target: int, *, num_tokens: int) -> None:
        """Give a request another slot."""
        self._slots.move(source, target, num_tokens=num_tokens)

    def release(self, slot: int) -> None:
        """Nothing: the next request writes over it."""

    def copy_out(self, slot: int, start: int, end: int) -> Layers:
        """Keys and values of some tokens."""
        return self._slots.copy_out(slot, start, end)

    def copy_in(self, slot: int, blocks: Sequence[Layers]) -> None:
        """Put them into another slot, as the beginning of its request."""
        self._slots.copy_in(slot, blocks)


class OneByOne:
    """Each request by itself, with the cache that transformers makes for the model: convolutions, recurrent states and all."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._device = next(model.parameters()).device
        self._caches: dict[int, Any] = {}

    def read(self, step: Step, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """As many passes as there are requests."""
        found = []
        borders = [0]
        for part in step.parts:
            borders.append(borders[-1] + part.num)
        for part, (start, end) in zip(step.parts, pairwise(borders), strict=True):
            own_P = torch.tensor([p - start for p in places if start <= p < end], device=self._device, dtype=torch.long)
            output = self._model(
                input_ids=torch.tensor([list(tokens[start:end])], device=self._device),
                position_ids=torch.arange(part.past, part.past + part.num, device=self._device)[None],
                past_key_values=self._caches.get(part.slot) if part.past else None,
                use_cache=True,
            )
            self._caches[part.slot] = output.past_key_values
            found.append(output.logits[0, own_P])
        return torch.cat(found)

    def reserve(self, *, num_slots: int, capacity: int) -> None:
        """Nothing: each cache grows by itself."""

    def bytes_for(self, num_slots: int, capacity: int) -> int:  # noqa: ARG002  the library's caches tell no size
        """Not known."""
        return 0

    def move(self, source: int, target: int, *, num_tokens: int) -> None:  # noqa: ARG002
        """Give a request another slot."""
        self._caches[target] = self._caches.pop(source)

    def release(self, slot: int) -> None:
        """Drop a cache."""
        self._caches.pop(slot, None)


@torch.inference_mode()
def _trial(together: Together, model: Any) -> tuple[Tensor, Tensor] | None:
    """Logits of two requests that are read in parts and together, and those that the model's own pass gives each alone.

    None where the model cannot be read together.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = (torch.arange(1, 23) * 7 % vocabulary).tolist()
    first, second = tokens[:13], tokens[13:]
    try:
        together.reserve(num_slots=2, capacity=16)
        plan = Step(parts=(Part(0, 0, 12), Part(1, 0, 5)), num_writing=0, device=device)
        together.read(plan, [*first[:12], *second[:5]], [0])
        plan = Step(parts=(Part(0, 12, 1), Part(1, 5, 4)), num_writing=1, device=device)
        found = together.read(plan, [first[12], *second[5:]], [0, 4])
    except (RuntimeError, TypeError, AttributeError, ValueError):  # attention that cannot be exchanged fails in as many kinds
        return None
    own = [model(input_ids=torch.tensor([each], device=device), use_cache=False).logits[0, -1] for each in (first, second)]
    return found, torch.stack(own)


def _agrees(trial: tuple[Tensor, Tensor] | None) -> bool:
    return trial is not None and is_same_reading(*trial)


def _bytes_per_token(model: Any) -> int:
    """Of keys and values in all layers, from a pass over one token."""
    slots = KeyValueSlots()
    slots.reserve(num_slots=1, capacity=1)
    device = next(model.parameters()).device
    step = Step(parts=(Part(0, 0, 1),), num_writing=0, device=device)
    with torch.inference_mode(), attending(model, slots, step):
        model(input_ids=torch.tensor([[1]], device=device), position_ids=step.positions(), use_cache=False)
    return slots.num_bytes // slots.size_for(num_slots=1, capacity=1)


def _at(logits: Tensor, places_P: Tensor) -> Tensor:
    """Logits (P, V), also from a model that knows no `logits_to_keep` and gives all of them."""
    return logits[0] if logits.shape[1] == len(places_P) else logits[0, places_P]
