"""What has become of a job: one decision, which `bench status` and `bench status --watch` both show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import one_line
from bench.records import record
from bench.run.live import Now

RUNNING, BLOCKED, TO_DO, BROKEN = "running", "blocked", "to do", "broken"
ORDER = (record.COMPLETE, RUNNING, record.STOPPED, record.FAILED, BROKEN, BLOCKED, TO_DO)


@dataclass(frozen=True)
class State:
    """What has become of a job.

    Attributes:
        name: one of `ORDER`; "to do" is a job that has not begun, or that a run at work will try again.
        detail: its step, its error, or what it waits for.
    """

    name: str
    detail: str = ""


def of(job: str, status: Mapping[str, Any] | None, now: Now, *, begun: bool) -> State:
    """Say what has become of a job.

    Args:
        job: its id.
        status: its status.json; {} where there is none, None where it cannot be relied on.
        now: what the last run of its suite said.
        begun: it has something on record.
    """
    if now.alive and job in now.running:
        return State(RUNNING, _doing(now, job))
    outcome = BROKEN if status is None else status.get("outcome")
    if outcome == record.COMPLETE:
        return State(record.COMPLETE, f"in {status['seconds']:.1f} s" if status and "seconds" in status else "")
    if job in now.blocked:
        return State(BLOCKED, f"needs {now.blocked[job]}, which failed")
    if now.alive and job in now.waiting:
        return State(TO_DO, f"waits for {now.waiting[job]}")
    if outcome in (record.FAILED, record.STOPPED):
        return State(str(outcome), one_line(str((status or {}).get("message", ""))))
    if outcome == BROKEN:
        return State(BROKEN, "'bench run' makes it again")
    if job in now.running:
        return State(record.STOPPED, f"its run was killed: {_doing(now, job)}; bench run goes on")
    if begun:
        return State(record.STOPPED, "began and did not end; bench run goes on")
    need = now.waiting.get(job, "")
    also = f"{need}, and " if need in now.waiting or need in now.running else ""
    return State(TO_DO, f"waits for {also}bench run")


def counted(jobs: Mapping[str, State]) -> str:
    """Return a line of how many jobs are what."""
    counts = Counter(one.name for one in jobs.values())
    told = ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
    return f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}: {told}"


def activity(said: Mapping[str, Any]) -> str:
    """Say what a job is doing: its step and losses, or the last thing it said."""
    if "step" in said:
        losses = "  ".join(f"f_{name} {value:.3f}" for name, value in said["losses"].items())
        return f"step {said['step']}/{said['steps']}  {losses}"
    return str(said.get("text", said["kind"]))


def _doing(now: Now, job: str) -> str:
    return activity({"kind": "started", **now.running[job]}).rstrip()
