"""How many devices a job is computed on, and whether each has all weights, by the memory that training takes.

It is estimated by the model's files and without activations, for which a fifth of a device is left.
"""

from __future__ import annotations

from dataclasses import replace

from bench.plan.plan import Plan
from bench.records.spec import ON_SEVERAL_DEVICES
from bench.run import space
from bench.settings import TrainingParts

SHARE = 0.8  # of a device's memory for weights and what is kept of each; the rest is left to activations
# Bytes of a trained number: itself, its gradient and AdamW's two moments in float32; in bfloat16 the rounded one besides.
_TRAINED = {"float32": 16, "bfloat16": 18}


def state_bytes(suite: TrainingParts) -> int | None:
    """Estimate what training holds in memory besides activations, by the model's files; None where they are not here."""
    weights = space.parameters(suite.model)
    if weights is None:
        return None
    dtype = suite.model.dtype
    if suite.adapter is None:
        return _TRAINED[dtype] * weights
    return space.BYTES[dtype] * weights + _TRAINED["float32"] * (
        space.adapter_parameters(suite.model, suite.adapter) or 0
    )


def shards(suite: TrainingParts, device: str) -> bool:
    """Say whether each of several devices has a part of every weight."""
    wanted = suite.training.shard
    if wanted != "auto":
        return wanted
    if suite.adapter is None:
        return True
    need, memory = state_bytes(suite), _memory() if device.startswith("cuda") else None
    return need is not None and memory is not None and need > SHARE * memory


def settled(plan: Plan, suite: TrainingParts, largest: int) -> Plan:
    """Return a plan whose jobs take as many devices as they need, where the suite leaves that open: 1, 2, 4 and so on.

    Args:
        largest: devices that a job can have.
    """
    memory, need = _memory(), state_bytes(suite)
    if suite.training.devices != "auto" or memory is None or need is None or suite.training.shard is False:
        return plan
    count = 1
    while need > SHARE * memory * count and 2 * count <= largest:
        count *= 2
    several = {name: replace(job, resources=replace(job.resources, devices=count)) for name, job in plan.jobs.items()}
    return replace(
        plan, jobs={n: several[n] if job.kind in ON_SEVERAL_DEVICES else job for n, job in plan.jobs.items()}
    )


def _memory() -> int | None:
    """Return the bytes of the smallest GPU of this machine; None without one."""
    from bench.collectors import nvml
    from bench.run import gpus

    return min(nvml.memory_bytes(), default=None) if gpus.visible() else None
