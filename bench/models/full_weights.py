"""A policy that is a whole model: its weights trained, kept as they were, saved and loaded again."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import ModelError
from bench.models.processes import is_shard, whole

FOLDER, FILE = "model", "model.safetensors"


def set_aside(modules: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Take off modules what replaces their computation on a CPU, which is for frozen weights; return what `put_back` takes."""
    found = [one for one in modules if isinstance(one.__dict__.get("forward"), functools.partial)]
    return [(module, module.__dict__.pop("forward")) for module in found]


def put_back(taken: Iterable[tuple[Any, Any]]) -> None:
    """Undo `set_aside`."""
    for module, forward in taken:
        module.forward = forward


class Training:
    """Train every weight of a model.

    AdamW's steps are too small for bfloat16, whose numbers near 1 lie 1/128 apart: a weight would stay where it is. So a
    bfloat16 model's steps are taken on float32 copies, rounded into the model after each; its gradients are added up in float32.

    Attributes:
        parameters: what the optimizer steps on, by name.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._aside = set_aside(model.modules())
        self._hooks: list[Any] = []
        own = {name: one for name, one in model.named_parameters() if one.is_floating_point()}
        for one in own.values():
            one.requires_grad_(True)
        self._copies: list[tuple[nn.Parameter, nn.Parameter]] = []
        self.parameters: dict[str, nn.Parameter] = {}
        for name, one in own.items():
            if one.dtype is torch.float32:
                self.parameters[name] = one
                continue
            wide = nn.Parameter(one.detach().float())
            self.parameters[name] = wide
            self._copies.append((one, wide))
            self._hooks.append(one.register_post_accumulate_grad_hook(functools.partial(_hand_on, wide)))

    @torch.no_grad()
    def round_into_model(self) -> None:
        """Give the model what a step left in the float32 copies."""
        for own, wide in self._copies:
            own.copy_(wide)

    def end(self) -> None:
        """Leave the model frozen, as one is loaded."""
        for hook in self._hooks:
            hook.remove()
        for one in self._model.parameters():
            one.requires_grad_(False)
            one.grad = None
        put_back(self._aside)


def _hand_on(wide: nn.Parameter, own: Tensor) -> None:
    """Add a gradient to that of the float32 copy."""
    assert own.grad is not None
    gradient = own.grad.float()
    wide.grad = gradient if wide.grad is None else wide.grad.add_(gradient)
    own.grad = None


# ---- weights as they were, and on disk --------------------------------------------------------------------------------


def copies(model: Any, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return copies of a model's weights in the CPU's memory, by name; of some, or of all."""
    wanted = None if names is None else set(names)
    return {
        name: one.detach().to("cpu", copy=True)
        for name, one in model.named_parameters()
        if wanted is None or name in wanted
    }


@torch.no_grad()
def put_in(model: Any, weights: dict[str, Tensor]) -> None:
    """Copy weights into a model, by name."""
    own = dict(model.named_parameters())
    for name, value in weights.items():
        own[name].copy_(value)


def save(model: Any, folder: Path, dtype: torch.dtype, writes: bool = True) -> None:
    """Save a model's weights in the type it computes in, by their names in memory; what shares weights is saved once.

    Of weights that lie in parts every process calls this, and the one that `writes` gets them whole, one at a time.
    """
    from safetensors.torch import save_file

    state = {}
    for name, one in model.named_parameters():
        value = whole(one.detach())
        if writes:
            state[name] = (value.to(dtype) if one.is_floating_point() else value).contiguous().cpu()
    if writes:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        save_file(state, folder / FOLDER / FILE, metadata={"format": "pt"})
        model.config.save_pretrained(str(folder / FOLDER))


@torch.no_grad()
def load(model: Any, folder: Path) -> None:
    """Copy saved weights into a model, one tensor in memory at a time.

    Raises:
        ModelError: they are not this model's.
    """
    from safetensors import safe_open

    path, own = folder / FOLDER / FILE, dict(model.named_parameters())
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        if names != own.keys():
            other = sorted(names ^ own.keys())[0]
            raise ModelError(f"{path}: its weights are not this model's: {other} is in one of them only")
        for name, value in _tensors(file, names):
            if value.shape != own[name].shape:
                raise ModelError(
                    f"{path}: {name} has the shape {list(value.shape)}, and this model's {list(own[name].shape)}"
                )
            own[name].copy_(_part_of(value.to(own[name].dtype), own[name]))


def _part_of(value: Tensor, own: Tensor) -> Tensor:
    """Return a tensor as `own` lies: whole, or in parts, of which this process takes its own."""
    if not is_shard(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    shared: Any = own
    made: Tensor = distribute_tensor(
        value.to(shared.device_mesh.device_type), shared.device_mesh, shared.placements, src_data_rank=None
    )
    return made


def _tensors(file: Any, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        yield name, file.get_tensor(name)


def is_saved_in(folder: Path) -> bool:
    """Say whether a job left a whole model, and not an adapter."""
    return (folder / FOLDER / FILE).is_file()
