"""How a LoRA adapter is made by PEFT's settings, and saved: always as one that fits the base model as it is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import ModelError
from bench.settings import Lora

NAME = "default"


def settings_of(lora: Lora) -> Any:
    """Return PEFT's settings of an adapter."""
    import peft

    targets: Any = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_dora=lora.variant == "dora",
        use_rslora=lora.variant == "rslora",
        init_lora_weights=True if lora.init == "default" else lora.init,
    )


def put_on(model: Any, settings: Any) -> Any:
    """Return the model with an adapter.

    From then on its settings say that it starts as any other: it is loaded from what is saved, and a copy beside it, as another
    library makes of it, is not to take its part out of the weights once more.
    """
    import peft

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft sets it as GPT-2's layers need it
        warnings.filterwarnings("ignore", message=".*init_lora_weights.*")  # it is saved as one that changes no weights
        made = peft.get_peft_model(model, settings)
    made.peft_config[NAME].init_lora_weights = True
    return made


def layers(model: Any) -> dict[str, Any]:
    """Return the adapter's layers by name."""
    from peft.tuners.lora import LoraLayer

    return {name: one for name, one in model.named_modules() if isinstance(one, LoraLayer)}


def base_names(model: Any) -> list[str]:
    """Name the adapted modules as the base model names them."""
    return [name.removeprefix("base_model.model.") for name in layers(model)]


def linear_weights(model: Any) -> list[str]:
    """Name the weights of a base model that an adapter could take a part out of, also where others share them."""
    from transformers.pytorch_utils import Conv1D

    found = {id(one.weight) for one in model.modules() if isinstance(one, (torch.nn.Linear, Conv1D))}
    return [name for name, one in model.named_parameters() if id(one) in found]


def check(model: Any, lora: Lora) -> None:
    """Refuse factors that are not of the adapter's rank: some ways to start make no larger ones than the weights allow.

    Raises:
        ModelError: names the module.
    """
    for name, layer in layers(model).items():
        if NAME not in layer.lora_A:
            continue
        factors = tuple(tuple(one[NAME].weight.shape) for one in (layer.lora_A, layer.lora_B))
        if factors != ((lora.rank, layer.in_features), (layer.out_features, lora.rank)):
            most = min(layer.in_features, layer.out_features)
            raise ModelError(
                f"lora.init = {lora.init}: {name.removeprefix('base_model.model.')} has {layer.out_features} × "
                f"{layer.in_features} weights, of which it makes no adapter of rank {lora.rank}; "
                + (
                    f"lower lora.rank to at most {most}"
                    if lora.rank > most
                    else "give another lora.init or lora.targets"
                )
            )


def factors(model: Any) -> dict[str, Tensor]:
    """Return copies of both factors of every layer, by the names of their parameters."""
    return {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if name.endswith((f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"))
    }


@torch.no_grad()
def take_out(model: Any, start: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
    """Leave in the adapted weights what is not in the adapter's start: W − s · B₀ A₀, as PEFT rounds it.

    Args:
        start: `factors` of the fresh adapter.
        kept: the weights as they were, by the names of their parameters in the base model.
    """
    for name, layer in layers(model).items():
        narrow, broad = (start[f"{name}.lora_{one}.{NAME}.weight"] for one in "AB")
        weight = layer.get_base_layer().weight
        own = name.removeprefix("base_model.model.")
        before = kept[f"{own}.weight"].to(weight.device).float()
        product = layer.scaling[NAME] * broad.float() @ narrow.float()
        weight.copy_((before - (product.T if layer.fan_in_fan_out else product)).to(weight.dtype))


def save(model: Any, folder: Path, start: dict[str, Tensor]) -> None:
    """Save an adapter that took its start out of the weights as a plain one on the weights as they were, of twice the rank.

    W − s B₀ A₀ + s B A = W + s [B, −B₀] [A; A₀]; the length that DoRA gives the rows is of the same sum.
    """
    import copy

    import peft
    from safetensors.torch import save_file

    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    begun = {name.replace(f".{NAME}.", "."): value for name, value in start.items()}
    made = {}
    for name, value in state.items():
        if ".lora_A." in name:
            value = torch.cat([value, begun[name].to(value)], dim=0)
        elif ".lora_B." in name:
            value = torch.cat([value, -begun[name].to(value)], dim=1)
        made[name] = value.detach().contiguous().cpu()
    settings = copy.deepcopy(model.peft_config[NAME])
    # Of the scale s = α / r, or α / √r, nothing changes.
    settings.lora_alpha = settings.lora_alpha * (math.sqrt(2) if settings.use_rslora else 2)
    settings.r *= 2
    settings.inference_mode = True
    settings.base_model_name_or_path = settings.base_model_name_or_path or getattr(model, "name_or_path", None)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(made, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings.save_pretrained(str(folder))


def take_off_halves(model: Any) -> None:
    """Put back the modules that an adapter which could not be made has already covered."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.base_layer)


def linear_names(model: Any) -> tuple[list[str], list[str]]:
    """Name the modules that LoRA could adapt (GPT-2's are convolutions of width 1), and linear ones that return something else.

    A router of experts is a linear layer that returns scores and choices: an adapter would break on it.
    """
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, Conv1D)
    found = [(name.split(".")[-1], type(one)) for name, one in model.named_modules() if isinstance(one, kinds)]
    plain = {name for name, kind in found if kind.forward in (torch.nn.Linear.forward, Conv1D.forward)}
    return sorted(plain), sorted({name for name, _ in found} - plain)


def why_none(lora: Lora, names: Iterable[str], others: Iterable[str], error: Exception) -> str:
    """Say why a model takes no adapter there, and where it may."""
    names, others = list(names), list(others)
    more = [name for name in lora.targets if name.split(".")[-1] in others]
    if more:
        return f"{', '.join(more)} computes more than a product, so it takes no adapter; the others are: {', '.join(names)}"
    unknown = [name for name in lora.targets if name != "all-linear" and name.split(".")[-1] not in names]
    if unknown:
        return f"not in this model{' (' + ', '.join(unknown) + ')' if len(lora.targets) > 1 else ''}; it has: {', '.join(names)}"
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    left = [name for name in names if name not in said]
    return f"peft takes no adapter there ({said}); modules of this model that may be named: {', '.join(left)}"
