"""LoRA's products in the base model's bfloat16, on a GPU: the adapter's weights stay float32 and are rounded for each pass.

PEFT widens a module's input to float32, multiplies there and rounds the sum: passes over memory, and products without the units
for bfloat16. Here y = W x + s · B (A x) with A and B rounded; the sum is rounded once, and gradients arrive in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Of PEFT's output and gradients, by their norm: some of bfloat16's roundings (2⁻⁹ each), which largely cancel.
_SHARE = 0.02


def install(policy: Any) -> None:
    """Let a GPU's bfloat16 model train its adapter so; where it does not agree with PEFT's own way, leave it and say so."""
    if policy.device.type == "cuda" and policy.model.dtype is torch.bfloat16 and not in_bfloat16(policy.model):
        policy.note("the adapter computes in float32: in bfloat16 it does not give what PEFT's own way does")


def installed(model: Any) -> bool:
    """Say whether any layer's adapter goes this way."""
    return any(type(module) is kind() for module in model.modules())


def in_bfloat16(model: Any) -> bool:
    """Turn a model's LoRA layers over to bfloat16; say whether one of each size agreed with PEFT's own way."""
    from peft.tuners.lora.layer import Linear

    layers = [module for module in model.modules() if type(module) is Linear]
    tried: dict[tuple[int, int], bool] = {}
    for layer in layers:
        size = (layer.in_features, layer.out_features)
        if size not in tried:
            tried[size] = _agrees(layer)
    if not all(tried.values()):
        return False
    for layer in layers:
        layer.__class__ = kind()  # of a class and not of the object, so that compiled layers share one graph
    return True


@functools.cache
def kind() -> Any:
    """Return PEFT's linear layer with another forward pass."""
    from peft.tuners.lora.layer import Linear

    class InBfloat16(Linear):  # type: ignore[misc, unused-ignore]  # peft has no types
        def forward(self, x: Tensor, *values: Any, **named: Any) -> Tensor:
            name = self.active_adapters[0] if len(self.active_adapters) == 1 else None
            plain = self.disable_adapters or self.merged or values or named or name not in self.lora_A
            if plain or name in self.lora_variant or self.lora_bias[name] or x.dtype is not torch.bfloat16:
                wide: Tensor = super().forward(x, *values, **named)
                return wide
            narrow, broad = (one[name].weight.to(x.dtype) for one in (self.lora_A, self.lora_B))
            added = F.linear(F.linear(self.lora_dropout[name](x), narrow), broad)
            return torch.add(self.base_layer(x), added, alpha=self.scaling[name])

    return InBfloat16


def _agrees(layer: Any) -> bool:
    """Compare output and gradients on some numbers, with weights that are not zero."""
    names = list(layer.active_adapters)
    if len(names) != 1 or names[0] not in layer.lora_A:
        return False
    weights = [one[names[0]].weight for one in (layer.lora_A, layer.lora_B)]
    kept, training, own = [one.detach().clone() for one in weights], layer.training, type(layer)
    chance = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance).to(weights[0].device)

    x, above = some(16, layer.in_features).bfloat16(), some(16, layer.out_features).bfloat16()
    try:
        with torch.no_grad():
            for one in weights:
                one.copy_(some(*one.shape) / one.shape[1] ** 0.5)
        layer.eval()
        expected = list(_outcome(layer, x, above, weights))
        layer.__class__ = kind()
        ours = list(_outcome(layer, x, above, weights))
    except (RuntimeError, KeyError, AttributeError):
        return False
    finally:
        layer.__class__ = own
        layer.train(training)
        with torch.no_grad():
            for one, before in zip(weights, kept, strict=True):
                one.copy_(before)
    return all(
        float((one - other).norm()) <= _SHARE * float(other.norm()) for one, other in zip(ours, expected, strict=True)
    )


@torch.enable_grad()
def _outcome(layer: Any, x: Tensor, above: Tensor, weights: list[Tensor]) -> Iterator[Tensor]:
    """Yield the output, and the gradients of its input and, where they are trained, of its weights."""
    inputs = x.clone().requires_grad_()
    mixed = layer(inputs)
    yield mixed.detach().float()
    trained = [one for one in weights if one.requires_grad]
    for gradient in torch.autograd.grad(mixed, [inputs, *trained], above):
        yield gradient.float()
