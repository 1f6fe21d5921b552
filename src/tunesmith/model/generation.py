"""Whole answers to many prompts, and one answer as it is written. Both run on the batch that serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from tunesmith.model.batching import Batch, Request, Said
from tunesmith.model.lean_products import Packing
from tunesmith.model.sampling import Sampling

__all__ = ["generate", "write"]

_PREFIX_BYTES = 128 * 1024 * 1024
"""For beginnings that prompts share: a system prompt, the same examples before every question."""
_WORTH_A_COPY = 4
"""Prompts for which the weights are copied into a faster layout, for as long as they are answered."""


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    stop_tokens: Sequence[int],
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Generate whole answers, in the order of the prompts.

    Prompts of similar length run together, and each that ends makes room for the next; that changes the speed and not the answers.

    Args:
        model: a transformers or PEFT causal model.
        prompts: token ids, none of them empty.
        sampling: how to choose; the draws of prompt number i depend on the seed and i alone.
        stop_tokens: an answer ends when it produces one of these, which is not part of it.
        batch_size: answers that are written at once.
        on_progress: told how many are done, each time that one is.

    Raises:
        ModelError: a prompt is empty.
    """
    packing: Packing = "blocks" if len(prompts) >= _WORTH_A_COPY else "none"
    batch = Batch(model, max_requests=batch_size, prefix_bytes=_PREFIX_BYTES, packing=packing)
    stops = frozenset(stop_tokens)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    owners = {
        batch.add(Request(prompt=prompts[i], sampling=sampling, stop_tokens=stops, row=i)): i for i in by_length
    }  # fmt: skip
    answers: list[list[int]] = [[] for _ in prompts]
    num_done = 0
    while num_done < len(prompts):
        for said in batch.step():
            if said.choice is not None:
                answers[owners[said.id]].append(said.choice.token)
            if said.finish is not None:
                num_done += 1
                if on_progress is not None:
                    on_progress(num_done)
    return answers


def write(model: nn.Module, prompt: Sequence[int], *, sampling: Sampling, stop_tokens: Sequence[int]) -> Iterator[Said]:
    """Generate one answer token by token; the last piece says why it ends.

    Raises:
        ModelError: the prompt is empty.
    """
    batch = Batch(model)
    batch.add(Request(prompt=prompt, sampling=sampling, stop_tokens=frozenset(stop_tokens)))
    while batch.num_running or batch.num_waiting:
        yield from batch.step()
