"""The products of a lean decoder: one or several linear layers that read the same input, as one product.

As they are: each layer's own weight is read at the moment of use, so that whoever changes it is heard; nothing is copied.
Packed, for a model whose weights stay as they are from now on (a server's): layers that read one input become one matrix, of which their
weights are views. In fp32 a matrix with more outputs than inputs is laid out by inputs: for one row that
is 0.6 to 0.8 of the time (MKL on a processor with AVX2).
Blocks: a copy in oneDNN's own layout, made where there is memory to spare. For a few rows it takes 0.6 of the time of any plain layout, in
bf16 and with AVX-512 for every number of rows. A packed product has them too.
In int8: one scale for each output, symmetric, activations in bf16.

Shapes: T rows, k inputs and o outputs, all layers together; r rank of adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model.lora import AdapterSettings, LoraLayer
from tunesmith.model.lora_many import ManyLayer, adapters_of_pass

__all__ = ["Packing", "Product", "bare"]

Packing = Literal["none", "blocks", "packed", "int8"]

_BLOCKED_FOR = 8
"""Rows that oneDNN chooses its blocks for."""
_ANY = range(1, 2**31)
_FEW = range(2, 65)


class _Update(NamedTuple):
    """What the adapters of layers that read one input add, as two products: of all A, and of all B in one matrix."""

    layers: Sequence[LoraLayer]
    settings: Sequence[AdapterSettings]
    down_kr: Tensor
    up_ro: Tensor
    """Times the scale."""

    def is_as_it_was(self) -> bool:
        """Whether no adapter has been switched off or scaled since."""
        return all(layer.is_enabled and layer.settings is own for layer, own in zip(self.layers, self.settings, strict=True))


class Product:
    """Some linear layers on one input; gives their outputs side by side."""

    def __init__(self, parent: nn.Module, names: Sequence[str]) -> None:
        """Name the layers; those that stand there now, without adapters, are what is multiplied."""
        self._parent = parent
        self._names = tuple(names)
        self._layers = [bare(getattr(parent, name)) for name in names]
        self._sizes = [layer.weight.shape[0] for layer in self._layers]
        self._bias: Tensor | None = None
        self._by_outputs: Tensor | None = None
        self._by_inputs: Tensor | None = None
        self._int8: tuple[Tensor, Tensor, Tensor] | None = None
        """Weights (o, k), scales (o,), and ones in their place."""
        self._blocks: Tensor | None = None
        self._update: _Update | None = None

    def __call__(self, x_Tk: Tensor) -> Tensor:
        """Outputs (T, o), those of adapters included."""
        outputs = self._base(x_Tk)
        if self._update is not None and self._update.is_as_it_was():
            return torch.addmm(outputs, x_Tk @ self._update.down_kr, self._update.up_ro)
        standing = [self._parent._modules[name] for name in self._names]
        if not any(isinstance(layer, LoraLayer) or (isinstance(layer, ManyLayer) and adapters_of_pass()) for layer in standing):
            return outputs
        parts = zip(standing, outputs.split(self._sizes, dim=-1), strict=True)
        return _side_by_side(
            [layer.updated(x_Tk, part) if isinstance(layer, ManyLayer | LoraLayer) else part for layer, part in parts]
        )

    def pack(self) -> None:
        """Make one matrix of the layers' weights; they become views of it. What is packed already stays where it is."""
        self._update = _update_of([self._parent._modules[name] for name in self._names])
        self._bias = self._biases()
        weights = [layer.weight.detach() for layer in self._layers]
        is_by_inputs = weights[0].dtype == torch.float32 and sum(self._sizes) >= weights[0].shape[1]
        weight_ok = _joined(weights, is_by_inputs=is_by_inputs)
        if weight_ok is None:
            weight_ok = torch.cat(weights)
            weight_ok = weight_ok.t().contiguous().t() if is_by_inputs else weight_ok
            for layer, view in zip(self._layers, weight_ok.split(self._sizes), strict=True):
                layer.weight.data = view
        if is_by_inputs:
            self._by_inputs = weight_ok.t()
        else:
            self._by_outputs = weight_ok

    def block(self) -> None:
        """Copy the weights into oneDNN's blocks; nothing where this torch or this processor has none in their number format."""
        weight_ok = torch.cat([layer.weight.detach() for layer in self._layers])
        if not torch.backends.mkldnn.is_available():
            return
        try:
            if weight_ok.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
                return
            blocks = torch.ops.mkldnn._reorder_linear_weight(weight_ok.contiguous(), _BLOCKED_FOR)
            _by_blocks(weight_ok.new_zeros(2, weight_ok.shape[1]), blocks, None)
        except (RuntimeError, TypeError, AttributeError):  # the operators are torch's own matter, and may be gone in another one
            return
        self._blocks, self._bias = blocks, self._biases()

    def pack_copy(self) -> None:
        """Lay out a copy by inputs: of a head whose weight is the embedding too, which is read by rows."""
        (layer,) = self._layers
        if layer.weight.dtype == torch.float32:
            self._by_inputs, self._bias = layer.weight.detach().t().contiguous(), self._biases()

    def take(self, packed: Product) -> None:
        """Multiply with what a product of the same weights has laid out; adapters are this one's own."""
        self._bias, self._by_outputs, self._by_inputs = packed._bias, packed._by_outputs, packed._by_inputs
        self._int8, self._blocks = packed._int8, packed._blocks
        self._update = _update_of([self._parent._modules[name] for name in self._names])

    def quantize(self) -> None:
        """Multiply in int8 from now on: w = s q with s = max |w| / 127 of each output."""
        weight_ok = torch.cat([layer.weight.detach() for layer in self._layers]).float()
        scales_o = weight_ok.abs().amax(dim=1).clamp(min=1e-12) / 127
        whole_ok = (weight_ok / scales_o[:, None]).round().to(torch.int8)
        self._int8 = (whole_ok, scales_o, torch.ones(len(scales_o), dtype=torch.bfloat16))
        self._bias = self._biases()
        self._update = _update_of([self._parent._modules[name] for name in self._names])

    def _base(self, x_Tk: Tensor) -> Tensor:
        if self._int8 is not None:
            whole_ok, scales_o, ones_o = self._int8
            # The kernel takes scales in bf16 only; those of fp32 are applied behind it.
            raw_To: Tensor = torch.ops.aten._weight_int8pack_mm(x_Tk.to(torch.bfloat16).contiguous(), whole_ok, ones_o)
            scaled_To = raw_To * scales_o
            return (scaled_To if self._bias is None else scaled_To.add_(self._bias)).to(x_Tk.dtype)
        if self._blocks is not None and len(x_Tk) in _by_blocks_best(self._blocks.dtype):
            return _by_blocks(x_Tk, self._blocks, self._bias)
        if self._by_inputs is not None:
            return torch.mm(x_Tk, self._by_inputs) if self._bias is None else torch.addmm(self._bias, x_Tk, self._by_inputs)
        if self._by_outputs is not None:
            return functional.linear(x_Tk, self._by_outputs, self._bias)
        return _side_by_side([functional.linear(x_Tk, layer.weight, layer.bias) for layer in self._layers])

    def _biases(self) -> Tensor | None:
        if all(layer.bias is None for layer in self._layers):
            return None
        zeros = [layer.weight.new_zeros(size) for layer, size in zip(self._layers, self._sizes, strict=True)]
        return torch.cat(
            [zero if layer.bias is None else layer.bias.detach() for layer, zero in zip(self._layers, zeros, strict=True)]
        )


def bare(layer: Any) -> Any:
    """A linear layer without the adapters around it."""
    return layer.base if isinstance(layer, ManyLayer | LoraLayer) else layer


def _update_of(standing: Sequence[Any]) -> _Update | None:
    if not all(isinstance(layer, LoraLayer) for layer in standing):
        return None
    weight = standing[0].weight
    ups = [(layer.lora_B.detach() * layer.settings.scale).to(weight.dtype) for layer in standing]
    downs = [layer.lora_A.detach().to(weight.dtype) for layer in standing]
    return _Update(
        standing, [layer.settings for layer in standing], torch.cat(downs).t(), torch.block_diag(*ups).t().contiguous()
    )


@cache
def _by_blocks_best(dtype: torch.dtype) -> range:
    """Numbers of rows for which blocks are the fastest layout.

    All, but in fp32 without AVX-512: there one row is faster by inputs, and a prompt's many are as fast plain.
    """
    return _ANY if dtype == torch.bfloat16 or torch.backends.cpu.get_cpu_capability() == "AVX512" else _FEW


def _by_blocks(x_Tk: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_Tk.contiguous(), blocks, bias, "none", [], "")  # type: ignore[no-any-return]


def _joined(weights: Sequence[Tensor], *, is_by_inputs: bool) -> Tensor | None:
    """The matrix of which these are views one after the other, or None."""
    num_outputs, num_inputs = sum(len(weight) for weight in weights), weights[0].shape[1]
    strides = (1, num_outputs) if is_by_inputs else (num_inputs, 1)
    storage, place = weights[0].untyped_storage(), weights[0].storage_offset()
    for weight in weights:
        is_here = weight.untyped_storage().data_ptr() == storage.data_ptr() and weight.storage_offset() == place
        if not is_here or weight.stride() != strides:
            return None
        place += len(weight) * strides[0]
    return weights[0].as_strided((num_outputs, num_inputs), strides)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)
