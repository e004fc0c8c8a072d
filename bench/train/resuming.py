"""Whether a run that goes on from a checkpoint ends, bit for bit, where it would have ended; how far it may be off is on record.

Sums that are made in another order differ in their last bits: by flash attention's backward pass on a GPU, on another number of
devices, by another version of torch. docs/decisions/devices.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from bench.errors import JobError
from bench.models.policy import Policy
from bench.models.processes import Processes

# Of a loss in nats, absolute. In float32 the tests hold runs of six steps on one, two and four processes to it; on a GPU, and in
# bfloat16, it is declared.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
_SAID = {
    "device": "on {now}, after {before}",
    "devices": "on {now} devices, after {before}",
    "torch": "by torch {now}, after {before}",
}


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Compute by torch's deterministic algorithms, or as the libraries like it.

    Raises:
        JobError: one of the model's operations has none.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if deterministic and "use_deterministic_algorithms" in str(error):
            first = str(error).strip().splitlines()[0][:200]
            raise JobError(f"training.deterministic: {first}; set it to false for this model") from error
        raise
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def conditions(policy: Policy, processes: Processes) -> dict[str, Any]:
    """Say, for a checkpoint, under what its run computes; equal conditions that repeat give equal bits."""
    on_gpu = policy.device.type == "cuda"
    name = torch.cuda.get_device_name(policy.device) if on_gpu else f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return {
        "device": name,
        "devices": processes.count,
        "torch": str(torch.__version__),
        "repeats": not on_gpu or torch.are_deterministic_algorithms_enabled(),
    }


def went_on(step: int, before: Mapping[str, Any] | None, now: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Say how a run went on at a step: whether bit for bit; if not, why, and to which tolerance.

    Args:
        before: the checkpoint's conditions; None: of a version that kept none.
        now: those of the run that goes on.
    """
    if before is None:
        reasons = ["its checkpoint does not say where it was made"]
    else:
        reasons = [
            said.format(now=now[name], before=before[name]) for name, said in _SAID.items() if now[name] != before[name]
        ]
        if not (now["repeats"] and before["repeats"]):
            reasons.append("on a GPU without training.deterministic")
    if not reasons:
        return {"step": step, "bit_equal": True}
    return {
        "step": step,
        "bit_equal": False,
        "reason": "; ".join(reasons),
        "loss_tolerance": {"value": TOLERANCE[dtype], "unit": "nats", "basis": "declared"},
    }


def in_words(one: Mapping[str, Any]) -> str:
    """Say it in a line."""
    if one["bit_equal"]:
        return f"resumed at step {one['step']}"
    told = one["loss_tolerance"]
    within = f"losses to {told['value']:g} {told['unit']}, {told['basis']}"
    return f"resumed at step {one['step']}, not bit-equal ({one['reason']}): {within}"
