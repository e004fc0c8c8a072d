"""Show a run as it goes: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import JobSpec

PLAIN_LINE_SECONDS = 30.0


class Estimate:
    """Estimate the time left from the jobs seen so far: seconds a step for training, seconds a job for the other kinds."""

    def __init__(self, jobs: dict[str, JobSpec], workers: int) -> None:
        self._left = set(jobs)
        self._work: dict[str, int] = defaultdict(int)  # kind -> steps of the jobs left, or how many they are
        for job in jobs.values():
            self._work[job.kind] += max(1, job.steps_to_run)
        self._workers = workers
        self._seen: dict[str, tuple[int, float]] = {}  # kind -> how many ended, and the sum of their seconds a step

    def ended(self, job: JobSpec, status: dict[str, Any]) -> None:
        if job.id in self._left:
            self._left.remove(job.id)
            self._work[job.kind] -= max(1, job.steps_to_run)
        if status["outcome"] == record.COMPLETE and "seconds" in status:
            count, total = self._seen.get(job.kind, (0, 0.0))
            self._seen[job.kind] = count + 1, total + status["seconds"] / max(1, job.steps_to_run)

    def seconds_left(self) -> float | None:
        """Return the estimate; None while no kind of the jobs left has been seen."""
        total, known = 0.0, False
        for kind, work in self._work.items():
            if work and kind in self._seen:
                count, seconds = self._seen[kind]
                total += seconds / count * work
                known = True
        return total / self._workers if known else None


class Progress:
    """Show a run's progress as it is told. Use as a context manager."""

    def __init__(self, plan: Plan, pending: set[str], workers: int, console: Console) -> None:
        self._console = console
        self._total, self._done = len(pending), 0
        self._estimate = Estimate({one: plan.jobs[one] for one in plan.jobs if one in pending}, workers)
        self._running: dict[str, dict[str, Any]] = {}
        self._began = time.monotonic()
        self._spoke: dict[str, float] = {}
        self._live = (
            Live(console=console, get_renderable=self._render, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def started(self, job: JobSpec) -> None:
        self._running[job.id] = {"kind": job.kind}
        self._spoke[job.id] = time.monotonic()

    def progress(self, job: JobSpec, message: dict[str, Any]) -> None:
        self._running[job.id] |= message
        if not self._live and time.monotonic() - self._spoke[job.id] > PLAIN_LINE_SECONDS:
            self._spoke[job.id] = time.monotonic()
            self._console.print(
                f"  {job.id}: {activity(self._running[job.id])}{self._time_left()}", markup=False, highlight=False
            )

    def retried(self, job: JobSpec, status: dict[str, Any]) -> None:
        self._running.pop(job.id, None)
        self._console.print(
            f"  {job.id}: {status['message']}: it is tried again", markup=False, highlight=False, soft_wrap=True
        )

    def ended(self, job: JobSpec, status: dict[str, Any]) -> None:
        self._running.pop(job.id, None)
        self._done += 1
        self._estimate.ended(job, status)
        line = f"[{self._done}/{self._total}] {job.id}: {status['outcome']}"
        if "seconds" in status:
            line += f" in {status['seconds']:.1f} s"
        if status["outcome"] != record.COMPLETE:
            line += f": {status['message']}"
        self._console.print(
            line + ("" if self._live else self._time_left()), markup=False, highlight=False, soft_wrap=True
        )

    def _time_left(self) -> str:
        left = self._estimate.seconds_left()
        return f" (about {_duration(left)} left)" if left else ""

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 2), show_header=False)
        for job_id, state in list(self._running.items()):
            table.add_row(Text(job_id, style="bold"), Text(activity(state)))
        spent = _duration(time.monotonic() - self._began)
        return Group(Text(f"{self._done} of {self._total} jobs, {spent}{self._time_left()}", style="cyan"), table)


def activity(state: dict[str, Any]) -> str:
    """Say what a job is doing: its step and losses, or the last thing it said."""
    if "step" in state:
        losses = "  ".join(f"f_{name} {value:.3f}" for name, value in state["losses"].items())
        return f"step {state['step']}/{state['steps']}  {losses}"
    return str(state.get("text", state["kind"]))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
