"""What stands in a suite's folder: which jobs are complete, which go on from a checkpoint, which were found damaged."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        labels: a complete job's id -> what its record is called by.
    """

    states: dict[str, str]
    damaged: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)


def look(plan: Plan, folder: Path, before: Standing | None = None) -> Standing:
    """Read every job's record, and see that a complete one's files are as they were written.

    Args:
        plan: whose jobs.
        folder: the suite's results.
        before: what was seen a moment ago: a job that was complete and has its status is not read again.

    Raises:
        InputError: something else stands in the place of a job's folder.
    """
    made = Standing({})
    for job_id in plan.jobs:
        path = folder / "jobs" / job_id
        if before and job_id in before.labels and (path / "status.json").is_file():
            made.states[job_id], made.labels[job_id] = record.COMPLETE, before.labels[job_id]
            continue
        found = _look(path)
        if isinstance(found, seal.Damage):
            made.states[job_id], made.damaged[job_id] = DAMAGED, found.what
        elif isinstance(found, record.Job):
            made.states[job_id] = str(found.status["outcome"])
            if found.complete:
                made.labels[job_id] = found.labels
        else:
            made.states[job_id] = found
    return made


def _look(path: Path) -> str | record.Job | seal.Damage:
    """Return a job that has ended, or what is wrong with it, or in words how far it is."""
    safe_files.refuse_other(path)
    if seal.is_begun(path):
        found = seal.examine(path, weights=True, thorough=False)
        if isinstance(found, seal.Damage) or found.status["outcome"] is not None:
            return found
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
