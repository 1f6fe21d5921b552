"""The number format in which passes through a model multiply, while its own weights stay in fp32.

On a CPU every pass reads bf16 copies of the weights, so that hidden states are bf16 from the embedding to the head: half the bytes, and no
casts between operations. The copies are part of the graph, so gradients reach the weights in fp32. On a GPU, and where a model's code
does not bear it, torch's autocast chooses a format for each operation instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from tunesmith.model.attention import current_layout, packed

__all__ = ["compute_activations_twice", "compute_in_bf16", "computes_in", "number_format"]

_in_bf16: WeakSet[nn.Module] = WeakSet()
_need_autocast: WeakSet[nn.Module] = WeakSet()
_copies: WeakKeyDictionary[nn.Module, Mapping[int, Tensor]] = WeakKeyDictionary()
"""Of the weights of models that are in the middle of a pass, by the weight's `id`."""


def compute_in_bf16(model: nn.Module) -> None:
    """From now on passes through this model multiply in bf16 on a CPU, while its weights stay as they are (fp32)."""
    _in_bf16.add(model)
    try:
        with torch.no_grad(), number_format(model, torch.device("cpu")):
            model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    except Exception:  # models that mix formats by hand fail in as many kinds as there are models
        _need_autocast.add(model)


def computes_in(model: nn.Module) -> torch.dtype:
    """The number format in which passes through this model multiply."""
    weight = next(model.parameters())
    return torch.bfloat16 if weight.device.type == "cuda" or model in _in_bf16 else weight.dtype


def compute_activations_twice(model: Any) -> None:
    """Keep each layer's input alone for the backward pass and compute the rest again there (Chen et al. 2016, arXiv 1604.06174).

    The second computation comes after the pass; it is given back the pass's layout of documents and its copies of the weights.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # the older name
    enable({"use_reentrant": False, "context_fn": lambda: (nullcontext(), _as_now(model))})


def _as_now(model: nn.Module) -> AbstractContextManager[None]:
    """A context to be entered later, in which this model reads as it does now."""
    layout, copies = current_layout(), _copies.get(model)

    @contextmanager
    def again() -> Iterator[None]:
        with ExitStack() as stack:
            if copies is not None:
                stack.enter_context(_reading(model, copies))
            if layout is not None:
                stack.enter_context(packed(model, layout))
            yield

    return again()


@contextmanager
def number_format(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Enter for one pass: a step changes the weights, and copies of them must not outlive it."""
    if device.type != "cpu" or model not in _in_bf16 or model in _need_autocast:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda" or model in _in_bf16):
            yield
        return
    # Embeddings stay: their gradients sum over many equal tokens, and bf16 would lose most of the sum.
    held = [module for module in model.modules() if not isinstance(module, nn.Embedding)]
    weights = [p for module in held for p in module._parameters.values() if p is not None and p.dtype == torch.float32]
    _copies[model] = {id(weight): weight.to(torch.bfloat16) for weight in weights}
    try:
        with _reading(model, _copies[model]):
            yield
    finally:
        del _copies[model]


@contextmanager
def _reading(model: Any, copies: Mapping[int, Tensor]) -> Iterator[None]:
    """Let every layer read the copies of its weights in their place, and the first one hidden states in bf16."""
    swapped: list[tuple[dict[str, Any], str, nn.Parameter]] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, _given, hidden: hidden.to(torch.bfloat16))
    try:
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if id(parameter) in copies and not isinstance(module, nn.Embedding):
                    swapped.append((module._parameters, name, parameter))
        for parameters, name, parameter in swapped:
            parameters[name] = copies[id(parameter)]
        yield
    finally:
        for parameters, name, parameter in swapped:
            parameters[name] = parameter
        hook.remove()
