"""Checkpoints of a training job: save, find, load, and take over another job's first phase."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.records import hashes, record, safe_files, seal
from bench.records.optimum import HALVES

FOLDER = "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found sound.

    Attributes:
        state: what `save` was given.
        rows: how far the job's append-only files reached then: name -> {bytes, sha256}; None: of a version that kept no such
            thing, so that rows are counted.
    """

    path: Path
    step: int
    state: dict[str, Any]
    rows: Mapping[str, Mapping[str, Any]] | None

    @property
    def tensors(self) -> Path:
        """Where the tensors lie that are as large as a whole model: see `shards`."""
        return seal.tensors_of(self.path)


def path_of(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / FOLDER / f"step-{step:06d}.pt"


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def save(folder: Path, step: int, state: Mapping[str, Any], keep: Iterable[int] = ()) -> None:
    """Write a checkpoint whole or not at all; it and the one before it stay, and `keep`.

    The rows that go with it are on the disk first: a checkpoint without them would leave a hole in the record.
    """
    before = [_step(path) for path in _every(folder)]
    rows = record.flush_rows(folder)
    path = path_of(folder, step)
    tensors = {one.name: hashes.read_hash(one) for one in sorted(seal.tensors_of(path).glob("*"))}
    with safe_files.replacing(path) as file:
        torch.save(dict(state), file)
    said = {
        "job": folder.name,
        "step": step,
        "sha256": hashes.read_hash(path),
        "rows": rows,
        **({"tensors": tensors} if tensors else {}),
    }
    record.write_json(path.with_suffix(".json"), said)
    safe_files.flush_folder(path.parent)
    prune(folder, keep=(*keep, step, *before[-1:]))


def prune(folder: Path, keep: Iterable[int]) -> None:
    """Delete all checkpoints but those at the steps given."""
    kept = {path_of(folder, step).stem for step in keep}
    for path in (folder / FOLDER).glob("*"):
        if path.stem not in kept:
            _delete(path)
    if not kept and (folder / FOLDER).exists():
        (folder / FOLDER).rmdir()


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _every(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("step-*.pt"))


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find a job's last checkpoint that is sound, with every row that goes with it; and say what is wrong with later ones."""
    damaged: list[str] = []
    for path in reversed(_every(folder)):
        found, wrong = _read(path)
        if found is not None:
            return found, damaged
        damaged.append(wrong)
    return None, damaged


def find(folder: Path, step: int) -> tuple[Checkpoint | None, str]:
    """Find a job's checkpoint at a step; None where it was deleted, or, with what is wrong, where it is not sound."""
    path = path_of(folder, step)
    return _read(path) if path.exists() else (None, "")


def _read(path: Path) -> tuple[Checkpoint | None, str]:
    """Read a checkpoint; one that is not sound is None, and what is wrong with it.

    Tensors and plain values only are loaded, nothing that could run code.
    """
    folder, step = path.parent.parent, _step(path)
    try:
        wrong = seal.wrong_checkpoint(path, hashes.read_hash)
        if wrong:
            return None, wrong
        note = path.with_suffix(".json")
        rows = record.read_json(note)["rows"] if note.exists() else None
        wrong = record.wrong_rows(folder, rows, step)
        if wrong:
            return None, f"{path.name} lacks its rows: {wrong}"
        return Checkpoint(path, step, torch.load(path, weights_only=True), rows), ""
    except Exception as error:  # a damaged file makes zip, pickle and torch raise errors of every kind
        return None, f"{path.name} cannot be read ({type(error).__name__})"


def drop(folder: Path, after: int) -> None:
    """Delete what is not gone on from: the checkpoints after a step."""
    for path in (folder / FOLDER).glob("step-*"):
        if _step(path) > after:
            _delete(path)


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
