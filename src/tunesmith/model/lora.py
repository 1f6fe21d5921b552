"""Low-rank adapters inside a transformers model, saved and loaded in PEFT's format.

Hu et al. 2021, arXiv 2106.09685: the adapted layer computes W x + s B A x, with W frozen, A (r, in), B (out, r) and s = alpha / r; or
alpha / sqrt(r), which keeps the size of the update at high ranks (rsLoRA, Kalajdzievski 2023, arXiv 2312.03732).

The layers are our own because the usual ones keep more for the backward pass and multiply more often. Layers that read the very same
input (queries, keys and values; gate and up) are found by a trial pass and computed together in training. Files are PEFT's: any tool
that reads its adapters reads ours. Knows no PEFT; `tunesmith prove` and the tests compare with it.

Shapes: N tokens, k inputs and o outputs of a layer, r rank, m layers that read one input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import ModelError

__all__ = ["AdapterSettings", "LoraLayer", "adapter_disabled", "adapter_scaled", "add_lora", "is_adapter", "lora_layers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """What an adapter's layers share."""

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


class LoraLayer(nn.Module):
    """A frozen linear layer with an adapter beside it; stands in the model where the linear layer stood."""

    def __init__(self, base: nn.Module, *, settings: AdapterSettings, is_transposed: bool) -> None:
        """Wrap a linear layer.

        Args:
            base: `nn.Linear`, or transformers' `Conv1D`, whose weight is (k, o).
            settings: rank, scale, dropout.
            is_transposed: whether the weight is (k, o).
        """
        super().__init__()
        self.base = base
        self.settings = settings
        self.is_transposed = is_transposed
        self.dropout = nn.Dropout(settings.dropout)
        self.is_enabled = True
        self.siblings: tuple[LoraLayer, ...] = (self,)
        outputs, inputs = self.weight.shape
        device = self.weight.device
        self.lora_A = nn.Parameter(torch.empty(settings.rank, inputs, device=device, dtype=torch.float32))
        self.lora_B = nn.Parameter(torch.zeros(outputs, settings.rank, device=device, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)  # as torch's linear layers begin, and PEFT's A
        self._ready: tuple[Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight as (o, k)."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight.t() if self.is_transposed else weight

    def forward(self, x: Tensor) -> Tensor:
        """W x + s B A x over the last dimension."""
        if not self.is_enabled:
            return self.base(x)  # type: ignore[no-any-return]
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if self.training and self.dropout.p:
            return self._plain(x, self.dropout(x))
        if self.training and torch.is_grad_enabled():
            return self._together(x)
        return self._plain(x, x)

    def _plain(self, x: Tensor, dropped: Tensor) -> Tensor:
        """Each product by itself: in evaluation, and where dropout makes the adapter's input another."""
        low = functional.linear(dropped, self.lora_A.to(x.dtype))
        update: Tensor = functional.linear(low, self.lora_B.to(x.dtype)) * self.settings.scale
        return self.base(x) + update  # type: ignore[no-any-return]

    def updated(self, x: Tensor, output: Tensor) -> Tensor:
        """W x, given by somebody else, + s B A x where the adapter is enabled; in evaluation."""
        if not self.is_enabled:
            return output
        low = functional.linear(x, self.lora_A.to(x.dtype))
        return output + functional.linear(low, self.lora_B.to(x.dtype)) * self.settings.scale

    def _together(self, x: Tensor) -> Tensor:
        """The first sibling computes all; the others find their part ready if they are asked for the same input."""
        if self._ready is not None:
            (asked, output), self._ready = self._ready, None
            if asked is x:
                return output
        layers = self.siblings
        parameters = [tensor for layer in layers for tensor in (layer.lora_A, layer.lora_B)]
        outputs: tuple[Tensor, ...] = _Adapted.apply(x.flatten(0, -2), layers, self.settings.scale, *parameters)  # type: ignore[no-untyped-call]
        shaped = [output.view(*x.shape[:-1], -1) for output in outputs]
        for layer, output in zip(layers, shaped, strict=True):
            if layer is not self:
                layer._ready = (x, output)
        return shaped[layers.index(self)]


class _Adapted(torch.autograd.Function):
    """m adapted layers on one input: (N, k) to m times (N, o).

    Kept for the backward pass: the input, which all share, and A x, which is r wide. With G = s dY B, the gradients are
    dX = sum dY W + G A, dA = G' x, dB = s dY' (A x). The thin products of all m layers are one product wherever they can be.
    """

    @staticmethod
    def forward(ctx: Any, x_Nk: Tensor, layers: Sequence[LoraLayer], scale: float, *parameters: Tensor) -> tuple[Tensor, ...]:
        downs, ups = _cast(parameters, x_Nk.dtype)
        with torch.autocast(x_Nk.device.type, enabled=False):
            low_Nmr = x_Nk @ torch.cat(downs).t() if len(downs) > 1 else x_Nk @ downs[0].t()
            outputs = []
            for layer, up, low in zip(layers, ups, low_Nmr.chunk(len(layers), dim=1), strict=True):
                bias: Any = layer.base.bias
                weight = layer.weight.t()
                output = x_Nk @ weight if bias is None else torch.addmm(bias, x_Nk, weight)
                outputs.append(output.addmm_(low, up.t(), alpha=scale))
        ctx.layers, ctx.scale = layers, scale
        ctx.save_for_backward(x_Nk, low_Nmr, *parameters)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x_Nk, low_Nmr, *parameters = ctx.saved_tensors
        downs, ups = _cast(parameters, x_Nk.dtype)
        num = len(ctx.layers)
        thin_Nmr, dx_Nk = torch.empty_like(low_Nmr), None
        gradients: list[Tensor] = []
        with torch.autocast(x_Nk.device.type, enabled=False):
            parts = zip(ctx.layers, upstream, ups, low_Nmr.chunk(num, dim=1), thin_Nmr.chunk(num, dim=1), strict=True)
            for layer, dy_No, up, low, thin in parts:
                torch.mm(dy_No, up, out=thin)
                gradients.append((dy_No.t() @ low).mul_(ctx.scale))
                if ctx.needs_input_grad[0]:
                    dx_Nk = dy_No @ layer.weight if dx_Nk is None else dx_Nk.addmm_(dy_No, layer.weight)
            thin_Nmr.mul_(ctx.scale)
            if dx_Nk is not None:
                dx_Nk.addmm_(thin_Nmr, torch.cat(downs) if num > 1 else downs[0])
            downs_grad = (thin_Nmr.t() @ x_Nk).chunk(num)
        each = [g.to(p.dtype) for pair in zip(downs_grad, gradients, strict=True) for g, p in zip(pair, parameters, strict=False)]
        return dx_Nk, None, None, *each


def _cast(parameters: Sequence[Tensor], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """A and B of each layer, in the number format of the computation."""
    cast = [parameter.to(dtype) for parameter in parameters]
    return cast[::2], cast[1::2]


def add_lora(model: nn.Module, *, rank: int, alpha: float, dropout: float = 0.0, seed: int, rslora: bool = False) -> nn.Module:
    """Freeze a model and put an adapter on every linear layer but the head; the model itself is changed and returned.

    All linear layers, because that is where adapters match full fine-tuning (Schulman et al. 2025, "LoRA Without Regret").
    A starts random (from `seed`), B at zero: the adapted model begins as the base itself.

    Raises:
        ModelError: the model has no linear layer to adapt, or has adapters already.
    """
    if is_adapter(model):
        raise ModelError("the model has adapters already")
    torch.manual_seed(seed)
    adapt(model, linear_layers(model), settings=AdapterSettings(rank=rank, alpha=alpha, dropout=dropout, rslora=rslora))
    return model


def adapt(model: nn.Module, paths: Mapping[str, bool], *, settings: AdapterSettings) -> None:
    """Freeze a model and adapt the layers named, from path to whether the weight is transposed."""
    if not paths:
        raise ModelError(f"{type(model).__name__} has no linear layer that an adapter could be put on")
    model.requires_grad_(requires_grad=False)
    for path, is_transposed in paths.items():
        parent, _, name = path.rpartition(".")
        layer = LoraLayer(model.get_submodule(path), settings=settings, is_transposed=is_transposed)
        setattr(model.get_submodule(parent), name, layer.train(model.training))
    _find_siblings(model)


def linear_layers(model: Any) -> dict[str, bool]:
    """Paths of all linear layers but the head, each with whether its weight is (inputs, outputs)."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        path: isinstance(module, Conv1D)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _find_siblings(model: Any) -> None:
    """Tie together the layers of one block that read the very same tensor one after the other in a pass over a few tokens."""
    calls: list[tuple[str, LoraLayer, Tensor]] = []
    parents = {layer: path.rpartition(".")[0] for path, layer in lora_layers(model).items()}

    def note(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        calls.append((parents[layer], layer, inputs[0]))

    hooks = [layer.register_forward_pre_hook(note) for layer in parents]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(input_ids=torch.arange(1, 5, device=next(model.parameters()).device)[None], use_cache=False)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    groups: list[list[tuple[str, LoraLayer, Tensor]]] = []
    for call in calls:
        if groups and groups[-1][0][0] == call[0] and groups[-1][0][2] is call[2]:
            groups[-1].append(call)
        else:
            groups.append([call])
    for group in groups:
        siblings = tuple(layer for _, layer, _ in group)
        if len(set(siblings)) == len(siblings):
            for layer in siblings:
                layer.siblings = siblings


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The adapted layers by their path in the model."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLayer)}


def is_adapter(model: nn.Module) -> bool:
    """Whether a model is a base with an adapter on it."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


@contextmanager
def adapter_disabled(model: Any) -> Iterator[None]:
    """Inside the block an adapted model answers as its base."""
    layers = lora_layers(model).values()
    for layer in layers:
        layer.is_enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.is_enabled = True


@contextmanager
def adapter_scaled(model: Any, factor: float) -> Iterator[None]:
    """Inside the block the update s B A x counts `factor` times: 0 answers as the base, 1 as the adapted model, more goes beyond it."""
    layers = lora_layers(model).values()
    before = [layer.settings for layer in layers]
    for layer in layers:
        layer.settings = replace(layer.settings, alpha=layer.settings.alpha * factor)
    try:
        yield
    finally:
        for layer, settings in zip(layers, before, strict=True):
            layer.settings = settings
