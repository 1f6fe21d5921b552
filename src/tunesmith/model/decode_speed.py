"""In which numbers a server on this machine multiplies: what was asked for, with what a probe measured.

A CPU writes one answer as fast as it reads weights, and many as fast as it multiplies. So the probe takes products of one row and of
eight: bf16 without units for it wins the first and loses the second by far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import torch
from torch import nn

from tunesmith.model.lean_products import Packing, Product
from tunesmith.model.machine import WORTH_IT, has_bf16_units

__all__ = ["Decoding", "DecodingPrecision", "ProductSpeed", "product_speed", "settled_decoding"]

DecodingPrecision = Literal["auto", "fp32", "bf16", "int8"]

_OUTPUTS, _INPUTS = 3072, 576
"""Gate and up of a model of 135 M."""
_NUM_WEIGHTS = 8
"""Matrices in turns, 57 MB in fp32: more than caches hold, as a model is."""
_ROUNDS = 8


class ProductSpeed(NamedTuple):
    """How many times as fast as in fp32."""

    one_row: float
    eight_rows: float

    def __str__(self) -> str:
        return f"{self.one_row:.2f} times the speed of fp32 for one stream and {self.eight_rows:.2f} times for eight"


class Decoding(NamedTuple):
    """What a server's precision comes to."""

    weights: Literal["fp32", "bf16"]
    packing: Packing
    why: str
    """To be shown; empty for fp32 that was asked for."""


def settled_decoding(
    wish: DecodingPrecision, *, measure: Callable[[Literal["bf16", "int8"]], ProductSpeed] | None = None
) -> Decoding:
    """Settle a wish. `auto` never takes int8, and bf16 only where the processor has units for it and both probes find it faster.

    Args:
        wish: of the person who serves.
        measure: None takes `product_speed`.
    """
    probe = measure or product_speed
    if wish == "fp32" or torch.cuda.is_available():
        return Decoding("fp32", "packed", "")
    if wish == "int8":
        return Decoding("fp32", "int8", f"int8: weights in 8 bits, answers are rounded; products have {probe('int8')} here")
    if wish == "auto" and not has_bf16_units():
        return Decoding("fp32", "packed", "precision: fp32, because this processor has no units for bf16")
    speed = probe("bf16")
    if wish == "auto" and min(speed) < WORTH_IT:
        return Decoding("fp32", "packed", f"precision: fp32, because products in bf16 have only {speed} here")
    return Decoding("bf16", "packed", f"precision: bf16, answers are rounded; products have {speed} here")


def product_speed(kind: Literal["bf16", "int8"]) -> ProductSpeed:
    """Measure, by the products that a server multiplies with. A busy machine blurs it: the least of several turns counts.

    In a thread of its own, whose helpers end with it: two threads that both have some wait for them more slowly (`waiting`).
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_product_speed, kind).result()


@torch.inference_mode()
def _product_speed(kind: Literal["bf16", "int8"]) -> ProductSpeed:
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    exact = [_product(torch.float32, packing="packed") for _ in range(_NUM_WEIGHTS)]
    rounded = [_product(dtype, packing="int8" if kind == "int8" else "packed") for _ in range(_NUM_WEIGHTS)]
    ratios = []
    for num_rows in (1, 8):
        x = torch.ones(num_rows, _INPUTS)
        given = x.to(dtype)
        least = [math.inf, math.inf]
        for _ in range(_ROUNDS):  # in turns, so that a busy moment meets both
            least[0] = min(least[0], _seconds(exact, x))
            least[1] = min(least[1], _seconds(rounded, given))
        ratios.append(least[0] / least[1])
    return ProductSpeed(*ratios)


def _product(dtype: torch.dtype, *, packing: Packing) -> Product:
    parent = nn.ModuleDict({"gate_up": nn.Linear(_INPUTS, _OUTPUTS, bias=False, dtype=dtype)})
    product = Product(parent, ["gate_up"])
    if packing == "int8":
        product.quantize()
    else:
        product.pack()
        product.block()
    return product


def _seconds(products: Sequence[Product], x: torch.Tensor) -> float:
    start = time.perf_counter()
    for product in products:
        product(x)
    return time.perf_counter() - start
