"""A model whose weights lie in parts on several devices (FSDP2): each layer's are put together where it is computed."""

from __future__ import annotations

import types
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
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
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
    model.bench_token_logps = types.MethodType(_token_logps, model)
    register_fsdp_forward_method(model, "bench_token_logps")


def _widen(module: Any) -> None:
    """Put a module's own weights, those of its parts that are shared out already apart, into float32."""
    from bench.models.processes import is_shard

    for one in module.parameters():
        if one.is_floating_point() and not is_shard(one):
            one.data = one.data.float()


def _token_logps(model: Any, batch: Any) -> Any:
    from bench.models import objectives

    return objectives.plain_token_logps(model, batch)


def is_sharded(model: Any) -> bool:
    """Say whether a causal model's weights lie in parts."""
    return hasattr(model, "bench_token_logps")
