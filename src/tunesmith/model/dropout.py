"""Dropout while a model is trained: on the embeddings, and on what each part of a layer adds to the residual stream.

Srivastava et al. 2014 (JMLR 15), at the places of Vaswani et al. 2017 (arXiv 1706.03762, section 5.4). Most models of today bring none,
since a pre-training reads nothing twice; a tuning reads few rows many times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.model.compiled import decoder_layers

__all__ = ["add_dropout"]

_SHARE = "residual_dropout"
"""Attribute of every module whose output is dropped from, so that the share can be looked up and changed."""


def add_dropout(model: nn.Module, *, share: float) -> None:
    """From now on drop from the embeddings and from what the layers' parts give, in training mode alone; kept numbers are scaled up.

    A part is a direct child of a decoder layer that multiplies by a matrix: its attention, its feed-forward network.

    Args:
        model: a transformers causal model, adapters on it or not.
        share: from 0 to below 1; 0 leaves the model as it is.

    Raises:
        ModelError: without its parts a layer of this model does not hand on what it was given, so dropping would tear the residual stream.
    """
    if not share:
        return
    layers = decoder_layers(model)
    parts = [part for layer in layers for part in layer.children() if any(weight.ndim > 1 for weight in part.parameters())]
    if not parts or not _hands_on(model, layers, parts):
        raise ModelError(
            f"train.optimiser.dropout is not known for {type(model).__name__}: its layers do not add what their parts give to what "
            "they were given. Leave it out, or use train.lora.dropout"
        )
    for module in (_embedding(model), *parts):
        setattr(module, _SHARE, share)
        module.register_forward_hook(_drop)


def _drop(module: nn.Module, _: Any, output: Any) -> Any:
    if not module.training:
        return output
    share = getattr(module, _SHARE)
    if isinstance(output, Tensor):
        return functional.dropout(output, share)
    return (functional.dropout(output[0], share), *output[1:])


@torch.no_grad()
def _hands_on(model: Any, layers: list[nn.Module], parts: list[nn.Module]) -> bool:
    """Whether every layer gives back its input where all that its parts give is dropped; tried on three tokens."""
    seen: list[tuple[Tensor, Tensor]] = []

    def silence(_: nn.Module, __: Any, output: Any) -> Any:
        return torch.zeros_like(output) if isinstance(output, Tensor) else (torch.zeros_like(output[0]), *output[1:])

    def note(_: nn.Module, given: Any, named: dict[str, Any], output: Any) -> None:
        before = given[0] if given else named["hidden_states"]
        seen.append((before, output if isinstance(output, Tensor) else output[0]))

    hooks = [part.register_forward_hook(silence) for part in parts]
    hooks += [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    was_training = model.training
    model.eval()
    try:
        model(input_ids=torch.tensor([[1, 2, 3]], device=_embedding(model).weight.device), use_cache=False)
    except (TypeError, IndexError, KeyError, AttributeError, ValueError):  # parts that give something else than hidden states
        return False
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return len(seen) == len(layers) and all(torch.equal(before, after) for before, after in seen)


def _embedding(model: Any) -> Any:
    return model.get_input_embeddings()
