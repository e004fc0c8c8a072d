"""How much room on the disk a run needs: adapters, checkpoints and records of the jobs that are still to be done."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import DiskFull
from bench.models import files
from bench.plan.plan import Plan
from bench.records.spec import WITH_ADAPTER, JobSpec
from bench.settings import Lora, Model
from bench.suite.suite import Suite

# Bytes of what the records of a job come to: a row a step, a row a question or an answer, and the rest.
_STEP, _ROW, _JOB = 400, 250, 20_000
_STATES = 3  # of a trained parameter in a checkpoint: itself, and AdamW's two moments
_KEPT = 2  # checkpoints of a running job
_FLOAT = 4
BYTES = {"float32": 4, "bfloat16": 2}
_WHOLE = "model.safetensors"  # of a run that trains all weights, and of a pre-training
_LONGEST_HEADER = 100 << 20


def needed(plan: Plan, folder: Path, pending: Iterable[str], workers: int) -> tuple[int, str]:
    """Estimate the bytes that the pending jobs leave on the disk, and what is not in it; "" where all is."""
    jobs = [plan.jobs[job_id] for job_id in pending]
    total = sum(_JOB + _STEP * job.steps for job in jobs)
    if not isinstance(plan.suite, Suite):
        return total, ""
    total += sum(_ROW * _rows(plan.suite) for job in jobs if job.kind not in WITH_ADAPTER)
    training = [job for job in jobs if job.kind in WITH_ADAPTER]
    if not training:
        return total, ""
    found = _weights_of_a_run(plan.suite) or _seen(plan.suite, folder)
    if found is None:
        what = "adapters" if plan.suite.adapter else "models"
        return total, f"without {what} and checkpoints: the model's shapes are not known before it is loaded"
    size, checkpoint = found
    return total + len(training) * size + checkpoint * _checkpoints(training, workers), ""


def _weights_of_a_run(suite: Suite) -> tuple[int, int] | None:
    """Return the bytes of what a run saves, and of a checkpoint, by the shapes in the model's files; None: they are not here."""
    lora = suite.adapter
    if lora is None:
        weights = parameters(suite.model)
        return None if weights is None else (BYTES[suite.model.dtype] * weights, _STATES * _FLOAT * weights)
    trained = adapter_parameters(suite.model, lora)
    if trained is None:
        return None
    return _FLOAT * trained * (2 if lora.moves_weights else 1), _STATES * _FLOAT * trained


def _seen(suite: Suite, folder: Path) -> tuple[int, int] | None:
    """Return them by what runs of the folder left already; None where none did."""
    saved = "adapter/*.safetensors" if suite.adapter else f"model/{_WHOLE}"
    largest = max((path.stat().st_size for path in (folder / "jobs").glob(f"*/{saved}")), default=None)
    if largest is None:
        return None
    numbers = largest // (_FLOAT if suite.adapter else BYTES[suite.model.dtype])
    return largest, _STATES * _FLOAT * numbers


def _rows(suite: Suite) -> int:
    return max((one.pairs_wanted() for one in suite.evaluation.chosen.values()), default=0)


def _checkpoints(training: list[JobSpec], workers: int) -> int:
    """Count the checkpoints that are there at the same time: those that other runs start from, and those of running jobs."""
    return sum(len(job.keep_steps) for job in training) + _KEPT * min(workers, len(training))


def check(plan: Plan, folder: Path, pending: Iterable[str], workers: int, others: int = 0) -> int:
    """Refuse to begin what the disk has no room for; return the bytes it needs.

    Args:
        others: bytes that other suites of the same call need before it.

    Raises:
        DiskFull: says how much is needed, and how much there is.
    """
    need, _ = needed(plan, folder, pending, workers)
    free = free_bytes(folder)
    if free is not None and free < need + others:
        beside = f" beside {in_words(others)} of the suites before it" if others else ""
        raise DiskFull(
            f"{folder}: needs about {in_words(need)}{beside}, {in_words(free)} are free; make room, or give another --results"
        )
    return need


def full(folder: Path, need: int | None = None) -> DiskFull:
    """Return the error of a disk that became full on the way."""
    free = free_bytes(folder)
    left = f", {in_words(free)} free" if free is not None else ""
    more = f"; what is left to do needs about {in_words(need)}" if need else ""
    return DiskFull(f"{folder}: the disk is full{left}{more}: make room, then the same command goes on")


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that may be written to where a folder is, or will be; None where nobody can tell."""
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def in_words(size: int) -> str:
    """Return a size for people."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= one:
            return f"{size / one:,.1f} {unit}"
    return f"{size} bytes"


def parameters(model: Model) -> int | None:
    """Count a model's weights by the shapes in its files, which are not loaded; None where there are none."""
    return sum(math.prod(shape) for shape in _shapes(model).values()) or None


def adapter_parameters(model: Model, lora: Lora) -> int | None:
    """Count an adapter's parameters by the shapes in the model's files, which are not loaded; None where there are none."""
    shapes = _shapes(model)
    if not shapes:
        return None
    adapted = [shape for name, shape in shapes.items() if _is_adapted(name, shape, lora)]
    lengths = sum(shape[0] for shape in adapted) if lora.variant == "dora" else 0
    return lora.rank * sum(sum(shape) for shape in adapted) + lengths or None


def _is_adapted(name: str, shape: list[int], lora: Lora) -> bool:
    if len(shape) != 2 or not name.endswith(".weight"):
        return False
    module = name.removesuffix(".weight")
    if lora.targets == ("all-linear",):
        return not any(word in module.rsplit(".", 1)[-1] for word in ("embed", "lm_head", "wte", "wpe", "norm"))
    return any(module == target or module.endswith(f".{target}") for target in lora.targets)


def _shapes(model: Model) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for file in _weights(model):
        found |= {name: one["shape"] for name, one in _header(file).items() if name != "__metadata__"}
    return found


def _weights(model: Model) -> list[Path]:
    """Find a model's weights where they are on this machine."""
    if model.source == "local":
        return sorted(Path(model.path or "").expanduser().glob("*.safetensors"))
    if model.source != "hub":
        return []
    from huggingface_hub import try_to_load_from_cache

    known = try_to_load_from_cache(str(model.path), "config.json", revision=files.revision_of(model))
    return sorted(Path(known).parent.glob("*.safetensors")) if isinstance(known, str) else []


def _header(file: Path) -> dict[str, Any]:
    """Read names and shapes from the head of a safetensors file."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header: dict[str, Any] = json.loads(opened.read(length)) if length <= _LONGEST_HEADER else {}
    except (OSError, ValueError, struct.error):
        return {}
    return header
