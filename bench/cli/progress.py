"""Show a run as it goes: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.records import record
from bench.records.spec import JobSpec
from bench.run.estimates.time_left import TimeLeft
from bench.run.states import activity

PLAIN_LINE_SECONDS = 30.0


class Progress:
    """Show a run's progress as it is told. Use as a context manager.

    Args:
        total: how many jobs are to be done.
        time_left: says how long they still take.
        console: where it is shown.
        which: what the time left is of, if not of all.
    """

    def __init__(self, total: int, time_left: TimeLeft, console: Console, which: str = "") -> None:
        self._console = console
        self._total, self._done = total, 0
        self._estimate, self._which = time_left, which
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
        self._estimate.started(job)
        self._running[job.id] = {"kind": job.kind}
        self._spoke[job.id] = time.monotonic()

    def progress(self, job: JobSpec, message: dict[str, Any]) -> None:
        self._estimate.progress(job, message)
        self._running[job.id] |= message
        if not self._live and time.monotonic() - self._spoke[job.id] > PLAIN_LINE_SECONDS:
            self._spoke[job.id] = time.monotonic()
            self._console.print(
                f"  {job.id}: {activity(self._running[job.id])}{self._time_left()}", markup=False, highlight=False
            )

    def retried(self, job: JobSpec, status: dict[str, Any]) -> None:
        self._estimate.retried(job)
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
        if self._done == self._total:
            return ""
        left = self._estimate.seconds()
        return " (time left: not known yet)" if left is None else f" (about {duration(left)} left{self._which})"

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 2), show_header=False)
        for job_id, state in list(self._running.items()):
            table.add_row(Text(job_id, style="bold"), Text(activity(state)))
        spent = duration(time.monotonic() - self._began)
        return Group(Text(f"{self._done} of {self._total} jobs, {spent}{self._time_left()}", style="cyan"), table)


def duration(seconds: float) -> str:
    """Return a length of time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
