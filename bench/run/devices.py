"""How many devices a job is computed on, and whether each has all weights, by the memory that training or asking takes.

It is estimated by the model's files and without activations, for which a fifth of a device is left.
"""

from __future__ import annotations

from dataclasses import replace

from bench.plan.plan import Plan
from bench.records.spec import ON_SEVERAL_DEVICES
from bench.run import space
from bench.settings import TrainingParts
from bench.suite.suite import Suite

SHARE = 0.8  # of a device's memory for weights and what is kept of each; the rest is left to activations
# Bytes of a trained number: itself, its gradient and AdamW's two moments in float32; in bfloat16 the rounded one besides.
_TRAINED = {"float32": 16, "bfloat16": 18}


def state_bytes(suite: TrainingParts, trains: bool = True) -> int | None:
    """Estimate what a job holds in memory besides activations, by the model's files; None where they are not here.

    Args:
        trains: whether it trains; else it only asks a policy.
    """
    weights = space.parameters(suite.model)
    if weights is None:
        return None
    dtype = suite.model.dtype
    if not trains:
        return space.BYTES[dtype] * weights
    if suite.adapter is None:
        return _TRAINED[dtype] * weights
    return space.BYTES[dtype] * weights + _TRAINED["float32"] * (
        space.adapter_parameters(suite.model, suite.adapter) or 0
    )


def shards(suite: TrainingParts, device: str, trains: bool = True) -> bool:
    """Say whether each of several devices has a part of every weight, in training or where a policy is asked."""
    wanted = suite.training.shard
    if wanted != "auto":
        return wanted
    if suite.adapter is None and trains:
        return True
    need, memory = state_bytes(suite, trains), _memory() if device.startswith("cuda") else None
    return need is not None and memory is not None and need > SHARE * memory


def settled(plan: Plan, suite: Suite, largest: int) -> Plan:
    """Return a plan whose jobs take as many devices as they need, where the suite leaves that open: 1, 2, 4 and so on.

    Args:
        largest: devices that a job can have.
    """
    memory, jobs = _memory(), dict(plan.jobs)
    if memory is None or suite.training.shard is False:
        return plan
    for devices, trains in ((suite.training.devices, True), (suite.evaluation.devices, False)):
        need = state_bytes(suite, trains)
        if devices != "auto" or need is None:
            continue
        count = 1
        while need > SHARE * memory * count and 2 * count <= largest:
            count *= 2
        split = suite.evaluation.split
        for name, job in plan.jobs.items():
            if job.kind in ON_SEVERAL_DEVICES if trains else (job.kind, job.stage) in split:
                jobs[name] = replace(job, resources=replace(job.resources, devices=count))
    return replace(plan, jobs=jobs)


def _memory() -> int | None:
    """Return the bytes of the smallest GPU of this machine; None without one."""
    from bench.collectors import nvml
    from bench.run import gpus

    return min(nvml.memory_bytes(), default=None) if gpus.visible() else None
