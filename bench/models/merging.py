"""An adapter in its base model's own weights for a while: what generates many tokens then pays nothing for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn


class CannotMerge(Exception):
    """Say why an adapter stays beside the weights."""


@contextmanager
@torch.no_grad()
def merged(model: Any) -> Iterator[Any]:
    """Yield the causal model with W + ΔW in place of W, and plain linear layers in place of the adapter's.

    Afterwards the weights are those from before, bit for bit: they are kept in the CPU's memory and copied back. A model
    without an adapter is yielded as it is.

    Raises:
        CannotMerge: the adapter is not LoRA on linear layers.
    """
    if not hasattr(model, "get_base_model"):
        yield model
        return
    causal = model.get_base_model()
    layers = _adapted(causal)
    kept: dict[str, torch.Tensor] = {}
    try:
        for name, layer in layers.items():
            weight = layer.base_layer.weight
            kept[name] = weight.detach().to("cpu", copy=True)
            weight.copy_(_sum(layer, weight).to(weight.dtype))
            _put(causal, name, layer.base_layer)
        yield causal
    finally:
        for name, before in kept.items():
            layers[name].base_layer.weight.copy_(before)
            _put(causal, name, layers[name])


def write_merged(model: Any, folder: Path) -> None:
    """Write the causal model with its adapter merged in.

    Raises:
        CannotMerge: as `merged`.
    """
    with merged(model) as causal:
        causal.save_pretrained(folder)


def _sum(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """Return W + ΔW in float32; with DoRA its rows stretched to their trained lengths."""
    total: torch.Tensor = weight.float() + sum(
        layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters
    )
    for adapter in _dora(layer):
        total *= (layer.lora_magnitude_vector[adapter].weight.float() / torch.linalg.norm(total, dim=1))[:, None]
    return total


def _dora(layer: Any) -> list[str]:
    """Name a layer's adapters that are DoRA."""
    return [name for name in layer.active_adapters if name in getattr(layer, "lora_magnitude_vector", {})]


def _adapted(causal: Any) -> dict[str, Any]:
    """Return the adapter's layers by name."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {name: one for name, one in causal.named_modules() if isinstance(one, BaseTunerLayer)}
    for name, one in found.items():
        if not (isinstance(one, LoraLayer) and type(one.base_layer) is nn.Linear) or one.merged:
            raise CannotMerge(f"{name} is not LoRA beside a linear layer")
        own_kind = set(getattr(one, "lora_variant", None) or ()) - set(_dora(one))
        if set(one.active_adapters) - set(one.lora_A) or own_kind or (_dora(one) and len(one.active_adapters) > 1):
            raise CannotMerge(f"{name} has a kind of LoRA of its own")
        if one.base_layer.weight is causal.get_input_embeddings().weight:
            raise CannotMerge(f"{name} shares its weights with the embeddings")
    return found


def _put(causal: Any, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(causal.get_submodule(parent), own, module)
