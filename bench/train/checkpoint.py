"""Checkpoints of a training job: save, find, load, and take over another job's first phase."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.records import record
from bench.records.optimum import HALVES

FOLDER = "checkpoints"


def _path(folder: Path, step: int) -> Path:
    return folder / FOLDER / f"step-{step:06d}.pt"


def save(folder: Path, step: int, state: Mapping[str, Any], keep: Iterable[int] = ()) -> None:
    """Write a checkpoint whole or not at all; of the older ones only `keep` stay."""
    path = _path(folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    prune(folder, keep=(*keep, step))


def prune(folder: Path, keep: Iterable[int]) -> None:
    """Delete all checkpoints but those at the steps given."""
    kept = {_path(folder, step) for step in keep}
    for path in (folder / FOLDER).glob("*"):
        if path not in kept:
            path.unlink()
    if not kept and (folder / FOLDER).exists():
        (folder / FOLDER).rmdir()


def latest(folder: Path) -> Path | None:
    """Find a job's last checkpoint."""
    return max((folder / FOLDER).glob("step-*.pt"), default=None)


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint; tensors and plain values only, nothing that could run code."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def find(folder: Path, step: int) -> Path | None:
    """Find a job's checkpoint at a step; None where it was deleted."""
    path = _path(folder, step)
    return path if path.exists() else None


def copy_rows(
    source: Path, folder: Path, step: int, reference: Mapping[str, Any] | None, beta: float, split: str
) -> None:
    """Charge a run that starts as another job was at `step` in full for that job's rows so far.

    Args:
        source, folder: the other job's folder and the run's.
        step: the last one that is taken over.
        reference: π_ref's log-probabilities, for f_DPO of a job that was made before them.
        beta: β of Eq. 1.
        split: which the run is followed on; the other one's values stand at its start alone, where an optimum has them all along.
    """
    record.clear_rows(folder)
    for name in ("steps", "usage"):
        rows = (row for row in record.read_jsonl(source / f"{name}.jsonl") if row["step"] <= step)
        record.append_jsonl(folder / f"{name}.jsonl", rows)
    trajectory = record.complete_trajectory(
        [row for row in record.read_jsonl(source / "trajectory.jsonl") if row["step"] <= step],
        list(record.read_jsonl(source / "evaluation_logps.jsonl")),
        reference or {},
        beta,
    )
    record.append_jsonl(
        folder / "trajectory.jsonl", (row if row["step"] == 0 else _of(row, split) for row in trajectory)
    )


def _of(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Leave the other split's values out of a point."""

    def own(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if "/" not in name or name.endswith(f"/{split}")}

    return own(row) | {HALVES: own(row.get(HALVES, {}))}


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch's random numbers (dropout draws from them)."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on with the random numbers of a checkpoint."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
