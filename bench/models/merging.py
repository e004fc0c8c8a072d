"""An adapter in its base model's own weights for a while: what generates many tokens then pays nothing for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
            delta = sum(layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters)
            kept[name] = weight.detach().to("cpu", copy=True)
            weight.copy_((weight.float() + delta).to(weight.dtype))
            _put(causal, name, layer.base_layer)
        yield causal
    finally:
        for name, before in kept.items():
            layers[name].base_layer.weight.copy_(before)
            _put(causal, name, layers[name])


@torch.no_grad()
def write_merged(model: Any, folder: Path) -> None:
    """Write the causal model with its adapter merged in by peft, which knows every kind of its own, such as DoRA.

    Afterwards the weights are those from before, bit for bit.

    Raises:
        CannotMerge: the adapter is on weights that the embeddings share.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    causal = model.get_base_model()
    layers = {name: one for name, one in causal.named_modules() if isinstance(one, BaseTunerLayer)}
    embeddings = causal.get_input_embeddings().weight
    shared = next((name for name, one in layers.items() if one.base_layer.weight is embeddings), None)
    if shared:
        raise CannotMerge(f"{shared} shares its weights with the embeddings")
    kept = {name: one.base_layer.weight.detach().to("cpu", copy=True) for name, one in layers.items()}
    try:
        for one in layers.values():
            one.merge(safe_merge=True)
        own = {name: value for name, value in causal.state_dict().items() if _of_the_base(name, layers)}
        causal.save_pretrained(folder, state_dict={name.replace(".base_layer.", "."): one for name, one in own.items()})
    finally:
        for name, before in kept.items():
            layers[name].unmerge()
            layers[name].base_layer.weight.copy_(before)


def _of_the_base(name: str, layers: Mapping[str, Any]) -> bool:
    """Whether a tensor is the base model's, under the name that it has behind an adapter."""
    holder = next((one for one in layers if name.startswith(f"{one}.")), None)
    return holder is None or name.startswith(f"{holder}.base_layer.")


def _adapted(causal: Any) -> dict[str, Any]:
    """Return the adapter's layers by name."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {name: one for name, one in causal.named_modules() if isinstance(one, BaseTunerLayer)}
    for name, one in found.items():
        if not (isinstance(one, LoraLayer) and type(one.base_layer) is nn.Linear) or one.merged:
            raise CannotMerge(f"{name} is not LoRA beside a linear layer")
        if set(one.active_adapters) - set(one.lora_A) or getattr(one, "lora_variant", None):
            raise CannotMerge(f"{name} has a kind of LoRA of its own")
        if one.base_layer.weight is causal.get_input_embeddings().weight:
            raise CannotMerge(f"{name} shares its weights with the embeddings")
    return found


def _put(causal: Any, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(causal.get_submodule(parent), own, module)
