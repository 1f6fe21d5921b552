"""Continuous batching: many requests in one pass, each joining and leaving at any step (Orca: Yu et al. 2022, OSDI).

In each step every request that writes brings its newest token, and those whose prompts are not read yet bring as much of them as
the step has room for, so a long prompt does not hold up the answers of others. Greedy answers are those of `transformers.generate`; a
request's tokens do not depend on which others run beside it, up to the rounding of sums.

Not safe for several threads: one thread adds, steps and cancels.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tunesmith.errors import ModelError
from tunesmith.model.kv_slots import Part, Step
from tunesmith.model.lean_products import Packing
from tunesmith.model.lora_many import AdapterSet
from tunesmith.model.prefixes import BLOCK, Prefixes
from tunesmith.model.sampling import Choice, Chooser, Sampling, choose
from tunesmith.model.slot_readers import Together, reader_for

__all__ = ["Batch", "Constraint", "Request", "Said"]


class Constraint(Protocol):
    """What an answer may look like, such as a JSON schema."""

    def allowed(self) -> NDArray[np.bool_]:
        """False where a token may not come next; ids beyond its end may not come. The tokens that end an answer count too."""
        ...

    def accept(self, token: int) -> None:
        """Hear which token came."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt to be continued."""

    prompt: Sequence[int]
    """Token ids, at least one."""
    sampling: Sampling
    stop_tokens: frozenset[int] = frozenset()
    row: int = 0
    """With the seed settles the draws."""
    adapter: str = ""
    """Of the batch's adapter set; empty: the model as it is."""
    scores_prompt: bool = False
    """Whether to tell how likely each token of the prompt is."""
    constraint: Constraint | None = None


class Said(NamedTuple):
    """What a step did for one request."""

    id: int
    choice: Choice | None
    """The new token; None where the request wrote none."""
    finish: str | None
    """`stop`, when it gave one of its stop tokens (which is not told), `length`, or `error`; None while it goes on."""
    prompt_scores: tuple[Choice, ...] | None = None
    """With a request's first token, where it was asked for: the second to the last token of its prompt."""
    error: Exception | None = None
    """Of its constraint, which ends this answer and no other."""
    num_cached: int | None = None
    """With a request's first token: tokens of its prompt that were kept and needed no reading."""


@dataclass(slots=True)
class _Row:
    """A request in a slot."""

    id: int
    request: Request
    chooser: Chooser
    past: int = 0
    """Tokens that its slot holds."""
    newest: int | None = None
    """The token that it wrote last; its keys and values are not in the slot yet. None while its prompt is read."""
    num_new: int = 0
    num_cached: int = 0
    scores: list[Choice] = field(default_factory=list)

    @property
    def unread(self) -> int:
        return len(self.request.prompt) - self.past


class Batch:
    """Requests on one model. `add` them, call `step` until none is left."""

    def __init__(
        self,
        model: nn.Module,
        *,
        max_requests: int = 32,
        max_length: int = 2**31 - 1,
        memory_bytes: int = 2**62,
        prefix_bytes: int = 0,
        tokens_per_step: int = 512,
        adapters: AdapterSet | None = None,
        packing: Packing = "none",
    ) -> None:
        """Prepare.

        Args:
            model: a transformers causal model, in evaluation mode.
            max_requests: that run at once; others wait.
            max_length: tokens of prompt and answer together.
            memory_bytes: for keys and values of running requests; who does not fit in waits.
            prefix_bytes: for beginnings that are kept; 0 keeps none.
            tokens_per_step: of prompts, while others write.
            adapters: those that requests may name.
            packing: how weights are laid out that stay as they are while this is used; see `lean_products`.

        Raises:
            ModelError: int8 of a model for which it is not known, or which it moves too far.
        """
        self._reader = reader_for(model, packing=packing)
        self._max_requests = max_requests
        self._max_length = max_length
        self._memory_bytes = memory_bytes
        self._tokens_per_step = tokens_per_step
        self._adapters = adapters
        self._device = next(model.parameters()).device
        self._rows: list[_Row] = []
        self._num_writing = 0
        self._waiting: deque[_Row] = deque()
        self._ids = itertools.count()
        self.prefixes = Prefixes(max_bytes=prefix_bytes if isinstance(self._reader, Together) else 0)

    @property
    def memory_bytes(self) -> int:
        """That keys and values of the running requests are counted with. May be asked from another thread."""
        requests = [row.request for row in list(self._rows)]
        return self._reader.bytes_for(len(requests), max(map(self._longest, requests))) if requests else 0

    @property
    def num_running(self) -> int:
        return len(self._rows)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, request: Request) -> int:
        """Queue a request; returns the number by which `Said` names it.

        Raises:
            ModelError: it is empty, or could never fit.
        """
        if not len(request.prompt):
            raise ModelError("a prompt with no tokens cannot be continued")
        if len(request.prompt) > self._max_length:
            raise ModelError(f"the prompt has {len(request.prompt):,} tokens; the context holds {self._max_length:,}")
        if not self._fits([request]):
            raise ModelError(
                f"a request of {self._longest(request):,} tokens needs more memory than the {self._memory_bytes:,} bytes that there are"
            )
        if request.adapter and (self._adapters is None or request.adapter not in self._adapters):
            raise ModelError(f"there is no adapter {request.adapter!r} here")
        row = _Row(next(self._ids), request, Chooser(request.sampling, prompt=request.prompt, row=request.row))
        self._waiting.append(row)
        return row.id

    @torch.inference_mode()
    def cancel(self, request_id: int) -> None:
        """Forget a request, waiting or running; an unknown or finished one is none of our business."""
        self._waiting = deque(row for row in self._waiting if row.id != request_id)
        for slot, row in enumerate(self._rows):
            if row.id == request_id:
                self._leave(slot)
                return

    @torch.inference_mode()
    def step(self) -> list[Said]:
        """Let in who fits, read and write once, and tell what came of it. Nothing where nobody is there."""
        self._let_in()
        if not self._rows:
            return []
        step, tokens, wanted = self._plan()
        rows = [self._rows[part.slot] for part in step.parts]
        with self._reading_adapters(step):
            logits_PV = self._reader.read(step, tokens, [place for places in wanted for place in places])
        for part, row in zip(step.parts, rows, strict=True):
            row.past = part.past + part.num
        return self._say(step, rows, logits_PV, [len(places) for places in wanted])

    def _plan(self) -> tuple[Step, list[int], list[list[int]]]:
        """The parts of the next step, its tokens, and for each part the places whose logits are wanted."""
        parts = [Part(slot, row.past, 1) for slot, row in enumerate(self._rows[: self._num_writing])]
        tokens = [row.newest for row in self._rows[: self._num_writing] if row.newest is not None]
        wanted = [[place] for place in range(len(tokens))]
        room = self._tokens_per_step
        for slot, row in enumerate(self._rows[self._num_writing :], start=self._num_writing):
            if room <= 0:
                break
            num = min(row.unread, room)
            room -= num
            start = len(tokens)
            parts.append(Part(slot, row.past, num))
            tokens += row.request.prompt[row.past : row.past + num]
            is_read = num == row.unread
            wanted.append(list(range(start, len(tokens))) if row.request.scores_prompt else [len(tokens) - 1] * is_read)
        return Step(parts=tuple(parts), num_writing=self._num_writing, device=self._device), tokens, wanted

    def _say(self, step: Step, rows: list[_Row], logits_PV: Tensor, num_wanted: Sequence[int]) -> list[Said]:
        """Choose for everyone who has a next token; those who are done leave."""
        choosing: list[tuple[_Row, int]] = []
        ends = itertools.accumulate(num_wanted)
        for part, row, num, end in zip(step.parts, rows, num_wanted, ends, strict=True):
            if row.newest is None:
                if row.request.scores_prompt:
                    self._score(row, part, logits_PV[end - num : end])
                if row.unread:
                    continue
                self._keep_prefix(row, part.slot)
                self._num_writing += 1
            choosing.append((row, end - 1))
        chosen = self._chosen([(row, place) for row, place in choosing if row.request.sampling.max_new_tokens > 0], logits_PV)
        said = [self._heard(row, chosen.get(row.id)) for row, _ in choosing]
        for row, one in zip((row for row, _ in choosing), said, strict=True):
            if one.finish is not None:
                self._leave(self._rows.index(row))
        return said

    def _chosen(self, writing: Sequence[tuple[_Row, int]], logits_PV: Tensor) -> dict[int, Choice | Exception]:
        """A token for every row that writes, from the logits at its place, or what its constraint raised."""
        chosen: dict[int, Choice | Exception] = {}
        going_on, places, masks = [], [], []
        for row, place in writing:
            try:
                masks.append(_mask(row.request.constraint, like_V=logits_PV[place]))
                going_on.append(row)
                places.append(place)
            except Exception as error:
                chosen[row.id] = error
        if going_on:
            is_all = places == list(range(len(logits_PV)))  # a copy of all logits costs as much as choosing
            logits_BV = logits_PV if is_all else logits_PV[torch.tensor(places, device=self._device)]
            choices = choose(logits_BV, [row.chooser for row in going_on], allowed=masks)
            chosen |= dict(zip((row.id for row in going_on), choices, strict=True))
        return chosen

    def _heard(self, row: _Row, choice: Choice | Exception | None) -> Said:
        """Note a row's new token, and whether it was its last."""
        is_first = row.newest is None
        scores = tuple(row.scores) if row.request.scores_prompt and is_first else None
        if isinstance(choice, Exception):
            return Said(row.id, None, "error", scores, choice)
        if choice is None:
            return Said(row.id, None, "length", scores)
        row.newest = choice.token
        if choice.token in row.request.stop_tokens:
            return Said(row.id, None, "stop", scores)
        if row.request.constraint is not None:
            try:
                row.request.constraint.accept(choice.token)
            except Exception as error:
                return Said(row.id, None, "error", scores, error)
        row.num_new += 1
        is_last = row.num_new >= row.request.sampling.max_new_tokens or row.past + 1 >= self._max_length
        return Said(row.id, choice, "length" if is_last else None, scores, num_cached=row.num_cached if is_first else None)

    def _score(self, row: _Row, part: Part, logits_NV: Tensor) -> None:
        """The log-probability of the tokens that follow a part's, as far as the prompt has them."""
        following = list(row.request.prompt[part.past + 1 : part.past + part.num + 1])
        if not following:
            return
        logprobs_NV = logits_NV[: len(following)].float().log_softmax(dim=-1)
        own_N = logprobs_NV.gather(1, torch.tensor(following, device=logprobs_NV.device)[:, None])[:, 0]
        num = row.request.sampling.num_logprobs or 0
        top = logprobs_NV.topk(num, dim=-1) if num else None
        for index, (token, logprob) in enumerate(zip(following, own_N.tolist(), strict=True)):
            pairs = zip(top.indices[index].tolist(), top.values[index].tolist(), strict=True) if top is not None else ()
            row.scores.append(Choice(token, logprob, tuple(pairs)))

    def _let_in(self) -> None:
        while self._waiting and len(self._rows) < self._max_requests:
            row = self._waiting[0]
            if self._rows and not self._fits([*(other.request for other in self._rows), row.request]):
                return
            self._waiting.popleft()
            self._rows.append(row)
            self._reader.reserve(num_slots=len(self._rows), capacity=self._longest(row.request))
            if isinstance(self._reader, Together) and not row.request.scores_prompt:  # what is scored must be read
                blocks = self.prefixes.find(row.request.prompt, adapter=row.request.adapter)
                self._reader.copy_in(len(self._rows) - 1, blocks)
                row.past = row.num_cached = len(blocks) * BLOCK

    def _fits(self, requests: Sequence[Request]) -> bool:
        return self._reader.bytes_for(len(requests), max(map(self._longest, requests))) <= self._memory_bytes

    def _longest(self, request: Request) -> int:
        return min(len(request.prompt) + request.sampling.max_new_tokens, self._max_length)

    def _keep_prefix(self, row: _Row, slot: int) -> None:
        if isinstance(self._reader, Together):
            prompt = row.request.prompt
            for name, start, end in self.prefixes.missing(prompt, adapter=row.request.adapter):
                self.prefixes.keep(name, self._reader.copy_out(slot, start, end))

    def _leave(self, slot: int) -> None:
        """Free a slot and close the hole: the last that writes moves into it, and the last of all into the place of that one."""
        if slot < self._num_writing:
            self._num_writing -= 1
            self._move(self._num_writing, slot)
            slot = self._num_writing
        self._move(len(self._rows) - 1, slot)
        self._rows.pop()
        self._reader.release(len(self._rows))

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self._reader.move(source, target, num_tokens=self._rows[source].past)
            self._rows[target] = self._rows[source]

    def _reading_adapters(self, step: Step) -> Any:
        if self._adapters is None:
            return nullcontext()
        return self._adapters.reading([(self._rows[part.slot].request.adapter, part.num) for part in step.parts])


def _mask(constraint: Constraint | None, *, like_V: Tensor) -> Tensor | None:
    if constraint is None:
        return None
    allowed = torch.from_numpy(constraint.allowed()).to(like_V.device)
    mask_V = torch.zeros_like(like_V, dtype=torch.bool)
    mask_V[: len(allowed)] = allowed[: len(mask_V)]
    if not bool(mask_V.any()):
        raise ModelError("the answer's shape leaves no token that could come next")
    return mask_V
