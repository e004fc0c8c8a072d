"""What of a checkpoint is as large as the model: weights and AdamW's moments, each process's part in a file of its own.

Written and read by `torch.distributed.checkpoint`, so that another number of processes opens it: each reads what it now has of
every tensor. It lies in a folder beside the checkpoint's file, whose note has the sha256 of every file in it.
"""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.models.policy import Policy
from bench.models.processes import Processes
from bench.records import seal
from bench.train import checkpoint

_MOMENTS = ("exp_avg", "exp_avg_sq")


def tensors(policy: Policy, optimizer: Any) -> dict[str, Tensor]:
    """Return all that is trained and AdamW's state of it by name; a weight that has had no gradient yet has moments of zero."""
    found: dict[str, Tensor] = {}
    for name, one in policy.trainable().items():
        state = optimizer.state.get(one, {})
        found[f"weight.{name}"] = one.detach()
        for moment in _MOMENTS:
            found[f"{moment}.{name}"] = state.get(moment, torch.zeros_like(one.detach()))
        found[f"step.{name}"] = torch.as_tensor(float(state.get("step", 0.0)))
    return found


def save(folder: Path, step: int, found: dict[str, Tensor], processes: Processes) -> None:
    """Write them; every process its own part. What an earlier attempt left there is deleted."""
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")
    target = seal.tensors_of(checkpoint.path_of(folder, step))
    if processes.main and target.exists():
        shutil.rmtree(target)
    processes.wait()
    with _quiet():
        dcp.save(found, checkpoint_id=str(target), no_dist=processes.alone)
    processes.wait()


def restore(source: Path, policy: Policy, optimizer: Any) -> None:
    """Go on with the weights and moments that any number of processes wrote."""
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")
    into = {name: torch.zeros_like(value) for name, value in tensors(policy, optimizer).items()}
    alone = policy.processes is None or policy.processes.alone
    with _quiet():
        dcp.load(into, checkpoint_id=str(source), no_dist=alone)
    with torch.no_grad():
        for name, one in policy.trainable().items():
            one.copy_(into[f"weight.{name}"])
            moments = {moment: into[f"{moment}.{name}"] for moment in _MOMENTS}
            optimizer.state[one] = {"step": into[f"step.{name}"], **moments}
    policy.end_step()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that one process writes alone, and of its own older classes
        yield
