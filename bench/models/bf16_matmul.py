"""Matrix products of bfloat16 numbers, made in float32 on a CPU that is faster so.

Many CPUs have no fast unit for bfloat16. Float32 holds its numbers exactly, so a product is made there and its result is
rounded to bfloat16 once, as such a unit does it. Weights stay bfloat16 in memory; one product's are widened at a time.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Below, widening a weight costs more than its product: a few rows, as in generation.
ROWS = 32
# float32 is taken where it needs at most this share of bfloat16's time; the margin keeps timing noise from deciding.
SHARE = 0.85
_left_alone = False


@functools.cache
def float32_is_faster() -> bool:
    """Time a product of a small model's size both ways in turns, widening and rounding included; once in a process."""
    inputs, weight = torch.randn(256, 768).bfloat16(), torch.randn(768, 768).bfloat16()
    ways = {"bfloat16": F.linear, "float32": _multiply}
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(5):
        for name, way in ways.items():
            started = time.perf_counter()
            way(inputs, weight)
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds["float32"] < SHARE * seconds["bfloat16"]


def in_float32(inputs: Tensor, rows: int) -> bool:
    """Say whether a product of so many rows is made in float32."""
    return worth_widening(inputs, rows) and float32_is_faster()


def worth_widening(inputs: Tensor, rows: int) -> bool:
    """Say whether so many rows of bfloat16 lie on a CPU, and may be computed in float32 if that is faster."""
    return not _left_alone and inputs.dtype is torch.bfloat16 and inputs.device.type == "cpu" and rows >= ROWS


@contextmanager
def left_alone() -> Iterator[None]:
    """Make no product in float32 for a while: a check on a few tokens then compares two layouts and not two roundings."""
    global _left_alone
    before, _left_alone = _left_alone, True
    try:
        yield
    finally:
        _left_alone = before


@contextmanager
def forward_only() -> Iterator[None]:
    """Compute something that has no backward pass: where products stay bfloat16, attention does, too."""
    with nullcontext() if float32_is_faster() else left_alone():
        yield


def install(model: Any) -> bool:
    """Let a frozen model's linear layers multiply in float32 where that is faster; say whether they do.

    The vocabulary's weights, used chunk by chunk, are widened once and kept beside the model.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or not in_float32(head.weight, ROWS):
        return False
    for module in model.modules():
        if type(module) is torch.nn.Linear and not module.weight.requires_grad:
            module.forward = functools.partial(_forward, module)  # type: ignore[method-assign]
    vars(head)["bench_float32"] = _Widened(head.weight)
    return True


class _Widened:
    """A weight in float32 beside its own, made anew once that is another."""

    def __init__(self, weight: Tensor) -> None:
        self.update(weight)

    def update(self, weight: Tensor) -> None:
        self._of, self.values = self._state(weight), weight.detach().float()

    def is_of(self, weight: Tensor) -> bool:
        return self._of == self._state(weight)

    @staticmethod
    def _state(weight: Tensor) -> tuple[int, int]:
        return weight.data_ptr(), weight._version


def weight_of(head: torch.nn.Linear) -> Tensor:
    """Return the vocabulary's weights as they are multiplied."""
    widened = vars(head).get("bench_float32")
    if widened is None or head.weight.requires_grad:
        return head.weight
    if not widened.is_of(head.weight):
        widened.update(head.weight)
    values: Tensor = widened.values
    return values


def _forward(module: torch.nn.Linear, inputs: Tensor) -> Tensor:
    if not in_float32(inputs, inputs.numel() // inputs.shape[-1]):
        return F.linear(inputs, module.weight, module.bias)
    function: Any = _InFloat32
    product: Tensor = function.apply(inputs, weight_of(module), module.bias)
    return product


def _multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(inputs.float(), weight.float(), None if bias is None else bias.float()).to(inputs.dtype)


class _InFloat32(torch.autograd.Function):
    """Multiply by a frozen weight; what is kept for backward is the weight alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _multiply(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return (above[0].float() @ weight.float()).to(above[0].dtype), None, None
