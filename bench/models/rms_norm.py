"""Root-mean-square normalization in a few passes over memory, for frozen weights on a CPU.

transformers writes it as one operation a line, each a pass over the hidden states, and backward twice as many. Here are
the same sums: with r = 1 / sqrt(mean(x²) + ε), y = w · x · r and ∂x = r · w · ∂y − x · r³ · mean(w · ∂y · x).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


def install(model: Any) -> int:
    """Let a frozen model's normalizations go this way where they compute the same; return how many do.

    Models' own normalizations differ in ways that their names do not tell, so one of each kind is tried on some numbers.
    """
    same: dict[type, bool] = {}
    found = 0
    for module in model.modules():
        if not type(module).__name__.endswith("RMSNorm") or getattr(module, "weight", None) is None:
            continue
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if epsilon is None or module.weight.requires_grad or module.weight.device.type != "cpu":
            continue
        if same.setdefault(type(module), _same(module, epsilon)):
            module.forward = functools.partial(_forward, module.weight, epsilon)
            found += 1
    return found


@torch.no_grad()
def _same(module: Any, epsilon: float) -> bool:
    numbers = torch.linspace(-2, 3, 3 * module.weight.numel()).view(3, -1).sin().to(module.weight.dtype)
    return torch.allclose(module(numbers), _forward(module.weight, epsilon, numbers), rtol=1e-5, atol=1e-6)


def _forward(weight: Tensor, epsilon: float, hidden: Tensor) -> Tensor:
    function: Any = _RootMeanSquare
    normalized: Tensor = function.apply(hidden, weight, epsilon)
    return normalized


class _RootMeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = hidden.float()
        size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        factor = size.square_().div_(hidden.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight, factor)
        # Rounded before it is weighted, as Llama has it.
        normalized: Tensor = (wide * factor).to(hidden.dtype) * weight
        return normalized

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        hidden, weight, factor = ctx.saved_tensors
        wide = hidden.float()
        weighted = (above[0] * weight).float()
        along = torch.linalg.vecdot(weighted, wide).unsqueeze(-1).mul_(factor**3).div_(-hidden.shape[-1])
        return weighted.mul_(factor).addcmul_(wide, along).to(hidden.dtype), None, None
