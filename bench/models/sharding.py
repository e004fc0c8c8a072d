"""A model whose weights lie in parts on several devices (FSDP2): each layer's are put together where it is computed."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench.errors import ModelError
from bench.models.processes import Processes


def shard(model: Any, processes: Processes, dtype: torch.dtype, trained: bool) -> None:
    """Leave this process's part of every weight on its device.

    Weights that are trained are kept in float32 and computed with in `dtype`, gradients are added up in float32: what
    `full_weights.Training` does on one device. Gradients of the processes' rows add up to the batch's.

    Args:
        model: a causal model, frozen, anywhere.
        processes: who has the parts.
        dtype: of weights and activations in computing.
        trained: whether the weights are to be trained, and not an adapter beside them.

    Raises:
        ModelError: its layers are not found.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [one for one in model.get_decoder().modules() if isinstance(one, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            "training.shard: this model's layers are not known, so it cannot be shared out; set it to false"
        )
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    widened = trained and dtype is not torch.float32
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if widened else MixedPrecisionPolicy()
    if trained:
        model.requires_grad_(True)
    for one in [*layers, model]:  # layer by layer, so that a device never holds more than one whole
        if widened:
            _widen(one)
        fully_shard(one, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        one.set_gradient_divide_factor(
            1.0
        )  # losses are shares of the batch's, so their gradients add up; of this one's own
        one.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    add_pass(model, "bench_token_logps", _token_logps)


def _widen(module: Any) -> None:
    """Put a module's own weights, those of its parts that are shared out already apart, into float32."""
    from bench.models.processes import is_shard

    for one in module.parameters():
        if one.is_floating_point() and not is_shard(one):
            one.data = one.data.float()


def _token_logps(model: Any, batch: Any) -> Any:
    from bench.models import objectives

    return objectives.plain_token_logps(model, batch)


def add_pass(model: Any, name: str, method: Callable[..., Any]) -> None:
    """Give a model a method that forwards it, in which its own weights are together as in its call."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    setattr(model, name, types.MethodType(method, model))
    register_fsdp_forward_method(model, name)


@contextmanager
def passes_of_each(causal: Any, processes: Processes | None) -> Iterator[None]:
    """Let each process make as many forward passes of a causal model as it has to, be its weights whole or in parts.

    Putting a layer together takes all processes. So before each pass they agree on one, and a process that has made its own
    passes over a single token until no other has one left. Inside, processes must exchange nothing else.
    """
    if processes is None or not is_sharded(causal):
        yield
        return

    def agree(*_: Any) -> None:
        processes.any(True)

    hook = causal.register_forward_pre_hook(agree, prepend=True)
    # By this mark of FSDP2's `generate` of transformers would keep the processes in step in a way of its own.
    marked, causal._is_fsdp_managed_module = causal._is_fsdp_managed_module, False
    try:
        yield
    finally:
        hook.remove()
        causal._is_fsdp_managed_module = marked
    with torch.no_grad():
        while processes.any(False):
            causal(input_ids=torch.zeros(1, 1, dtype=torch.long, device=processes.device), use_cache=False)


def is_sharded(model: Any) -> bool:
    """Say whether a causal model's weights lie in parts."""
    return hasattr(model, "bench_token_logps")
