"""What a plan will take on this machine: seconds, peak memory and the wall time, as far as earlier records tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.plan import priority, schedule
from bench.plan.plan import Plan
from bench.records import record
from bench.run import sharing, standing, thread_counts
from bench.run.estimates import past
from bench.run.estimates.durations import Durations, Guess, of_job


@dataclass(frozen=True)
class OfKind:
    """What the jobs of a kind that are to be done will take.

    Attributes:
        kind, stage: the kind, and of an evaluator its stage.
        jobs: how many are to be done.
        seconds: of all of them, one after another; None: not known, and `seconds_reason` says why.
        at_most: whether jobs like one of them were seen only with loading and compiling.
        peak_memory_bytes: the most that one took; None: not known, and `peak_memory_reason` says why.
    """

    kind: str
    stage: str
    jobs: int
    seconds: float | None
    seconds_reason: str | None
    at_most: bool
    peak_memory_bytes: int | None
    peak_memory_reason: str | None


@dataclass(frozen=True)
class Forecast:
    """What a plan will take.

    Attributes:
        workers: jobs that compute at the same time.
        records: the folder whose records tell.
        wall_seconds: until the last job has ended; None: not known, and `wall_seconds_reason` says why.
        at_most: whether the seconds of a kind are.
        kinds: those of the jobs that are to be done.
        taken_over: job -> the suite of the same results folder that it would be taken over from; not in `kinds`.
        not_taken: what could be taken over and would not be, and why.
    """

    workers: int
    records: Path
    wall_seconds: float | None
    wall_seconds_reason: str | None
    at_most: bool
    kinds: tuple[OfKind, ...]
    taken_over: Mapping[str, str]
    not_taken: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "workers": self.workers,
            "records": str(self.records),
            "wall_seconds": self.wall_seconds,
            "wall_seconds_reason": self.wall_seconds_reason,
            "at_most": self.at_most,
            "kinds": [asdict(one) for one in self.kinds],
            "jobs_taken_over": len(self.taken_over),
            "taken_over": dict(self.taken_over),
            "not_taken_over": list(self.not_taken),
        }


def make(
    plan: Plan, folder: Path, selected: set[str], states: dict[str, str], workers: int, like: Path | None = None
) -> Forecast:
    """Tell what is to be done of a plan, and what it will take.

    Args:
        plan: which.
        folder: the suite's results.
        selected: jobs that are meant.
        states: of the plan's jobs.
        workers: jobs that compute at the same time.
        like: the results folder whose records tell; that of the suite when left out.
    """
    threads = thread_counts.kept(folder) or thread_counts.of_folder(folder, workers)[0]
    pending = standing.to_do(plan, folder, selected, states)
    taken = sharing.would_take(plan, folder, pending, threads)
    pending = (
        standing.to_do(plan, folder, selected, states | dict.fromkeys(taken.jobs, record.COMPLETE)) - taken.jobs.keys()
    )
    records = like or folder.parent
    found = past.read(records, past.this_machine(threads), plan)
    durations = Durations(found.took)
    guesses = {one: durations.guess(of_job(plan.jobs[one])) for one in plan.jobs if one in pending}
    groups: dict[tuple[str, str], dict[str, Guess | None]] = {}
    for job_id, guess in guesses.items():
        job = plan.jobs[job_id]
        groups.setdefault((job.kind, job.stage), {})[job_id] = guess
    kinds = tuple(_of_kind(plan, found, records, *which, jobs) for which, jobs in groups.items())
    unknown = {one.kind: None for one in kinds if one.seconds is None}
    seconds = {one: guess.seconds for one, guess in guesses.items() if guess is not None}
    wall = None
    if not unknown:
        ends = schedule.simulate(plan.jobs, priority.order(plan, workers), seconds, workers)
        wall = max(ends.values(), default=0.0)
    reason = _nothing(" or ".join(unknown), records, found) if unknown else None
    return Forecast(
        workers, records, wall, reason, any(one.at_most for one in kinds), kinds, taken.jobs, tuple(taken.notes)
    )


def _of_kind(
    plan: Plan, found: past.Past, records: Path, kind: str, stage: str, jobs: Mapping[str, Guess | None]
) -> OfKind:
    known = [guess for guess in jobs.values() if guess is not None]
    seconds, why = sum(one.seconds for one in known), None
    if len(known) < len(jobs):
        some = f" for {len(jobs) - len(known)} of {len(jobs)} jobs" if known else ""
        why = _nothing(kind, records, found) + some
    peaks = [found.memory.get(of_job(plan.jobs[one]).kind) for one in jobs]
    peak = None if None in peaks else max(one for one in peaks if one is not None)
    no_peak = f"no such job of kind {kind} of this machine with its peak memory is on record in {records}"
    at_most = any(not one.sure for one in known)
    return OfKind(
        kind, stage, len(jobs), None if why else seconds, why, at_most, peak, no_peak if peak is None else None
    )


def _nothing(kinds: str, records: Path, found: past.Past) -> str:
    """Say that jobs are not known: those of another model, data limits or number of devices are not alike."""
    others = f" ({found.others} of other machines or threads do not count)" if found.others else ""
    return f"no such job of kind {kinds} of this machine is on record in {records}{others}"
