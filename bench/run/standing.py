"""What stands in a suite's folder: which jobs are complete, which go on from a checkpoint, which were found damaged."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import InputError
from bench.plan.plan import Plan
from bench.records import record, safe_files, seal

RESUMABLE, PENDING, DAMAGED = "resumable", "pending", "damaged"


@dataclass(frozen=True)
class Standing:
    """What stands in a folder of results.

    Attributes:
        states: a job's id -> complete, failed, stopped, resumable (has a checkpoint), damaged or pending.
        damaged: a damaged job's id -> what is wrong with it.
    """

    states: dict[str, str]
    damaged: dict[str, str] = field(default_factory=dict)


def look(plan: Plan, folder: Path) -> Standing:
    """Read every job's record, and see that a complete one's files are as they were written.

    Raises:
        InputError: something else stands in the place of a job's folder.
    """
    found = {job_id: _state(folder / "jobs" / job_id) for job_id in plan.jobs}
    damaged = {job_id: one.what for job_id, one in found.items() if isinstance(one, seal.Damage)}
    return Standing({job_id: one if isinstance(one, str) else DAMAGED for job_id, one in found.items()}, damaged)


def _state(path: Path) -> str | seal.Damage:
    safe_files.refuse_other(path)
    if seal.is_begun(path):
        found = seal.examine(path, weights=True, thorough=False)
        if isinstance(found, seal.Damage):
            return found
        if found.status["outcome"] is not None:
            return str(found.status["outcome"])
    return RESUMABLE if any((path / "checkpoints").glob("step-*.pt")) else PENDING


def select(plan: Plan, only: str | None) -> set[str]:
    """Return the jobs that match a glob, and all they need.

    Raises:
        InputError: nothing matches.
    """
    if only is None:
        return set(plan.jobs)
    chosen = {job_id for job_id in plan.jobs if fnmatch.fnmatch(job_id, only) or fnmatch.fnmatch(job_id, f"{only}-*")}
    if not chosen:
        raise InputError(f"--only {only}: matches no job; 'bench plan' lists them")
    for job_id in reversed(plan.jobs):
        if job_id in chosen:
            chosen |= set(plan.jobs[job_id].needs)
    return chosen


def to_do(plan: Plan, folder: Path, selected: set[str], states: dict[str, str]) -> set[str]:
    """Return the selected jobs that must run: not complete, or complete without the weights that a pending job loads."""
    pending = {job_id for job_id in selected if states[job_id] != record.COMPLETE}
    for job_id in reversed(plan.jobs):  # a job stands after those it needs
        if job_id in pending:
            pending |= {one for one in plan.jobs[job_id].needs_weights_of if not seal.weights_in(folder / "jobs" / one)}
    return pending


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a suite's folder, in which one process at a time makes and deletes jobs.

    Raises:
        InputError: another one holds it.
    """
    from filelock import FileLock, Timeout

    safe_files.own_folder(folder, may_be_link=True)
    safe_files.own_folder(folder / "jobs")
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another bench run is at work in this folder; wait for it or use --results"
        ) from None
    try:
        yield
    finally:
        lock.release()


def folders(folder: Path) -> Iterator[Path]:
    """Yield every folder of a suite in which a killed writer may have left a file."""
    yield folder
    for job in (folder / "jobs").glob("*"):
        yield job
        yield job / "checkpoints"
