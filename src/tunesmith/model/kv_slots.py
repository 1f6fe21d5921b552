"""Keys and values of many requests at once, and attention over them, for a pass in which every request brings its own number of tokens.

The tokens of all requests of a step lie in one row without padding, as in training: the products with weights do not know where a request
ends. Attention does. Requests that bring one token each are computed together over the longest of them; one that brings several (its
prompt, or a part of it) by itself. Registered in transformers' own attention interface, so causal models of the library use it unpatched.

Slots 0 to R - 1 are in use, without a hole: the first D belong to requests that write (one token a step), the others to requests whose
prompt is not read yet.

Shapes: T tokens of a step; H query heads, K key/value heads, G = H / K; E head width; R requests, D of them writing; L keys of the longest;
C tokens that a slot can hold, S slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from tunesmith.model.quiet import quiet_libraries

__all__ = ["KeyValueSlots", "Part", "Rules", "Step", "attend_alone", "attend_in_slots", "attending"]

SLOTS = "tunesmith_slots"
_FEWEST = 64
"""A slot's least capacity, in tokens."""


class Part(NamedTuple):
    """What one request brings to a step: `num` tokens, after the `past` that its slot holds already."""

    slot: int
    past: int
    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """All parts of a step, in the order of their tokens in the row: first the D that write, one token each, in the order of their slots."""

    parts: tuple[Part, ...]
    num_writing: int
    device: torch.device
    _masks: dict[object, Tensor] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """L: keys that the longest writing request sees, the new one included."""
        return max((part.past + 1 for part in self.parts[: self.num_writing]), default=0)

    def places(self) -> Tensor:
        """Shape (D,): where each writing request's new key goes in its slot."""
        return self._kept("places", lambda: torch.tensor([p.past for p in self.parts[: self.num_writing]], device=self.device))

    def positions(self) -> Tensor:
        """Shape (1, T): each token's position in its request."""
        every = [position for part in self.parts for position in range(part.past, part.past + part.num)]
        return torch.tensor([every], device=self.device)

    def writing_mask(self, *, window: int | None, dtype: torch.dtype) -> Tensor:
        """Shape (D, 1, 1, L), to be added to scores: 0 where a writing request may look."""

        def make() -> Tensor:
            keys_L, last_D1 = torch.arange(self.longest, device=self.device), self.places()[:, None]
            seen_DL = keys_L <= last_D1
            if window is not None:
                seen_DL &= keys_L > last_D1 - window
            return _added(seen_DL[:, None, None], dtype)

        return self._kept(("writing", window), make)

    def reading_mask(self, part: Part, *, window: int | None, dtype: torch.dtype) -> Tensor:
        """Shape (num, past + num), to be added to scores: 0 where a token of a part may look."""

        def make() -> Tensor:
            keys, queries = torch.arange(part.past + part.num, device=self.device), torch.arange(part.num, device=self.device)
            seen = keys <= queries[:, None] + part.past
            return _added(seen if window is None else seen & (keys > queries[:, None] + part.past - window), dtype)

        return self._kept((part, window), make)

    def _kept(self, key: object, make: Any) -> Tensor:
        """The same for every layer, so made once."""
        if key not in self._masks:
            self._masks[key] = make()
        return self._masks[key]


class KeyValueSlots:
    """The storage: for each layer keys and values of shape (S, K, C, E), made as large as is needed, in the model's own number format."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._num_slots = 0
        self._capacity = 0

    def reserve(self, *, num_slots: int, capacity: int) -> None:
        """Make room for so many slots of so many tokens. Grows by doubling, keeps what is there, and never shrinks."""
        self._num_slots = max(self._num_slots, _doubled(num_slots, least=1))
        self._capacity = max(self._capacity, _doubled(capacity, least=_FEWEST))
        for index, pair in self._layers.items():
            if pair[0].shape[0] < self._num_slots or pair[0].shape[2] < self._capacity:
                self._layers[index] = (self._grown(pair[0]), self._grown(pair[1]))

    def size_for(self, *, num_slots: int, capacity: int) -> int:
        """Tokens in the storage once there is room for so many slots of so many tokens."""
        slots = max(self._num_slots, _doubled(num_slots, least=1))
        return slots * max(self._capacity, _doubled(capacity, least=_FEWEST))

    @property
    def num_bytes(self) -> int:
        """Memory that is taken."""
        return sum(tensor.nbytes for pair in self._layers.values() for tensor in pair)

    def move(self, source: int, target: int, *, num_tokens: int) -> None:
        """Give a request another slot."""
        for pair in self._layers.values():
            for tensor in pair:
                tensor[target, :, :num_tokens] = tensor[source, :, :num_tokens]

    def copy_out(self, slot: int, start: int, end: int) -> list[tuple[int, Tensor, Tensor]]:
        """Keys and values of some tokens of a request, by layer: each of shape (K, end - start, E)."""
        return [
            (i, keys[slot, :, start:end].clone(), values[slot, :, start:end].clone())
            for i, (keys, values) in self._layers.items()
        ]

    def copy_in(self, slot: int, blocks: Sequence[Sequence[tuple[int, Tensor, Tensor]]]) -> None:
        """Put back what `copy_out` gave, block by block, as the beginning of a request."""
        for parts in zip(*blocks, strict=True):
            keys, values = (torch.cat([part[which] for part in parts], dim=1) for which in (1, 2))
            kept_keys, kept_values = self.layer(parts[0][0], like_keys=keys[None], like_values=values[None])
            kept_keys[slot, :, : keys.shape[1]] = keys
            kept_values[slot, :, : values.shape[1]] = values

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer that has some."""
        return self._layers[index]

    def layer(self, index: int, *, like_keys: Tensor, like_values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, made at its first use after the shapes (1, K, T, E) that the model gives."""
        if index not in self._layers:
            self._layers[index] = (self._new(like_keys), self._new(like_values))
        return self._layers[index]

    def _new(self, like: Tensor) -> Tensor:
        return like.new_zeros(self._num_slots, like.shape[1], self._capacity, like.shape[3])

    def _grown(self, old: Tensor) -> Tensor:
        new = old.new_zeros(self._num_slots, old.shape[1], self._capacity, old.shape[3])
        new[: old.shape[0], :, : old.shape[2]] = old
        return new


class _Current(NamedTuple):
    slots: KeyValueSlots
    step: Step


_current: ContextVar[_Current | None] = ContextVar("slots", default=None)


@contextmanager
def attending(model: Any, slots: KeyValueSlots, step: Step) -> Iterator[None]:
    """Inside the block a transformers model reads a step's row and remembers it in the slots; after it, it attends as it did before."""
    own = model.config._attn_implementation
    token = _current.set(_Current(slots, step))
    if own != SLOTS:
        with quiet_libraries():
            model.set_attn_implementation(SLOTS)
    try:
        yield
    finally:
        _current.reset(token)
        if own != SLOTS:
            with quiet_libraries():
                model.set_attn_implementation(own)


class Rules(NamedTuple):
    """How a layer attends."""

    scaling: float
    window: int | None
    softcap: float | None


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  the interface passes it; the step says everything
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention of each request over its own slot, the new keys and values included.

    Args:
        module: the attention module, asked for `layer_idx`.
        query: shape (1, H, T, E).
        key: shape (1, K, T, E).
        value: shape (1, K, T, E).
        attention_mask: ignored.
        scaling: factor on the scores, 1 / sqrt(E) when None.
        sliding_window: a token sees only this many tokens back, itself included.
        softcap: scores become softcap * tanh(score / softcap) (Gemma 2).

    Returns:
        Shape (1, T, H, E), and no attention weights.
    """
    current = _current.get()
    if current is None:
        raise RuntimeError("attention over slots outside `attending`")
    slots, step = current
    rules = Rules(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    keys_SKCE, values_SKCE = slots.layer(int(module.layer_idx), like_keys=key, like_values=value)  # type: ignore[arg-type]
    q_HTE, k_KTE, v_KTE = query[0].to(keys_SKCE.dtype), key[0].to(keys_SKCE.dtype), value[0].to(values_SKCE.dtype)
    return attend_in_slots(q_HTE, k_KTE, v_KTE, keys_SKCE, values_SKCE, step=step, rules=rules)[None], None


def attend_in_slots(
    q_HTE: Tensor, k_KTE: Tensor, v_KTE: Tensor, keys_SKCE: Tensor, values_SKCE: Tensor, *, step: Step, rules: Rules
) -> Tensor:
    """Remember a step's keys and values, and let every token look at its own request: shape (T, H, E)."""
    attended = [_writing(q_HTE, k_KTE, v_KTE, keys_SKCE, values_SKCE, step=step, rules=rules)] if step.num_writing else []
    start = step.num_writing
    for part in step.parts[step.num_writing :]:
        own = slice(start, start + part.num)
        keys_SKCE[part.slot, :, part.past : part.past + part.num] = k_KTE[:, own]
        values_SKCE[part.slot, :, part.past : part.past + part.num] = v_KTE[:, own]
        attended.append(_reading(q_HTE[:, own], keys_SKCE[part.slot], values_SKCE[part.slot], step=step, part=part, rules=rules))
        start += part.num
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def attend_alone(
    q_1HE: Tensor, k_1KE: Tensor, v_1KE: Tensor, keys_SKCE: Tensor, values_SKCE: Tensor, *, past: int, rules: Rules
) -> Tensor:
    """The same for the only token of a step, in the first slot, without masks: shape (1, H, E)."""
    num_keys, width = k_1KE.shape[1:]
    keys_1KCE, values_1KCE = keys_SKCE[:1], values_SKCE[:1]
    keys_1KCE.select(2, past).copy_(k_1KE)
    values_1KCE.select(2, past).copy_(v_1KE)
    start = 0 if rules.window is None else max(0, past + 1 - rules.window)
    seen = (2, start, past + 1 - start)
    q_1KGE = q_1HE.view(1, num_keys, -1, width)
    return _attend(q_1KGE, keys_1KCE.narrow(*seen), values_1KCE.narrow(*seen), mask=None, rules=rules).flatten(1, 2)


def _writing(
    q_HTE: Tensor, k_KTE: Tensor, v_KTE: Tensor, keys_SKCE: Tensor, values_SKCE: Tensor, *, step: Step, rules: Rules
) -> Tensor:
    """The requests that bring one token each: shape (D, H, E). The G heads that share a key are taken for G queries."""
    num, length = step.num_writing, step.longest
    rows, places = torch.arange(num, device=q_HTE.device), step.places()
    keys_SKCE[rows, :, places] = k_KTE[:, :num].transpose(0, 1)
    values_SKCE[rows, :, places] = v_KTE[:, :num].transpose(0, 1)
    heads, groups = keys_SKCE.shape[1], q_HTE.shape[0] // keys_SKCE.shape[1]
    q_DKGE = q_HTE[:, :num].transpose(0, 1).unflatten(1, (heads, groups))
    is_even = rules.window is None and all(part.past == length - 1 for part in step.parts[:num])
    mask = None if is_even else step.writing_mask(window=rules.window, dtype=q_HTE.dtype)
    return _attend(q_DKGE, keys_SKCE[:num, :, :length], values_SKCE[:num, :, :length], mask=mask, rules=rules).flatten(1, 2)


def _reading(q_HNE: Tensor, keys_KCE: Tensor, values_KCE: Tensor, *, step: Step, part: Part, rules: Rules) -> Tensor:
    """A request that brings N tokens: shape (N, H, E)."""
    length = part.past + part.num
    heads, groups = keys_KCE.shape[0], q_HNE.shape[0] // keys_KCE.shape[0]
    k_K1LE, v_K1LE = keys_KCE[:, None, :length], values_KCE[:, None, :length]
    q_KGNE = q_HNE.unflatten(0, (heads, groups))
    k_KGLE, v_KGLE = k_K1LE.expand(-1, groups, -1, -1), v_K1LE.expand(-1, groups, -1, -1)
    if not part.past and rules.window is None and rules.softcap is None:
        out = functional.scaled_dot_product_attention(q_KGNE, k_KGLE, v_KGLE, is_causal=True, scale=rules.scaling)
    else:
        mask = step.reading_mask(part, window=rules.window, dtype=q_HNE.dtype)
        out = _attend(q_KGNE, k_KGLE, v_KGLE, mask=mask, rules=rules)
    return out.flatten(0, 1).transpose(0, 1)


def _attend(query: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None, rules: Rules) -> Tensor:
    if rules.softcap is None:
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=rules.scaling)
    scores = rules.softcap * torch.tanh(query @ keys.transpose(-1, -2) * rules.scaling / rules.softcap)
    if mask is not None:
        scores = scores + mask
    return scores.float().softmax(dim=-1).to(values.dtype) @ values


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The same as a term of the scores, in their own number format: attention would make it anew in every layer."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf)


def _doubled(wanted: int, *, least: int) -> int:
    size = least
    while size < wanted:
        size *= 2
    return size


AttentionInterface.register(SLOTS, slot_attention)
