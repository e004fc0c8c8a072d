"""Walk the plan: hand ready jobs to a pool of workers, skip what is complete, outlive a job that dies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from bench.errors import BenchError, DiskFull, Interrupted, is_full
from bench.plan import priority
from bench.plan.plan import Plan
from bench.records import record, safe_files, seal
from bench.records.spec import JobSpec
from bench.run import devices, live, space, standing
from bench.run.pool import Event, Pool
from bench.run.signals import Signals
from bench.run.suite_file import write_suite as write_suite
from bench.suite.suite import Suite

LAST_RUN = "last_run.json"
WORKER_DIED = "WorkerDied"
RETRY_SECONDS = 5.0  # before a second attempt where a network or a server had trouble; four times that before a third


class Listener(Protocol):
    """Hear what happens; `progress.py` shows it."""

    def started(self, job: JobSpec) -> None: ...
    def progress(self, job: JobSpec, message: dict[str, Any]) -> None: ...
    def retried(self, job: JobSpec, status: dict[str, Any]) -> None: ...
    def ended(self, job: JobSpec, status: dict[str, Any]) -> None: ...


@dataclass
class Summary:
    """Say what became of every job of a run.

    Attributes:
        damaged: what was found damaged, by job, and is made up for.
        retried: how often a job was tried again.
        taken_over: the suite that made it, by job, of those that were taken over.
    """

    skipped: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    damaged: dict[str, list[str]] = field(default_factory=dict)
    retried: dict[str, int] = field(default_factory=dict)
    taken_over: dict[str, str] = field(default_factory=dict)
    not_selected: list[str] = field(default_factory=list)


class Execution:
    """Run the pending jobs of a plan.

    Args:
        plan: what is to be done.
        folder: the suite's results.
        listener: hears what happens.
        pool: where jobs run; it is closed at the end.
        taken_over: jobs that were taken over for this run just now, and the suite that each is from.
        before: what stood in the folder a moment ago.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        listener: Listener,
        pool: Pool,
        taken_over: Mapping[str, str] | None = None,
        before: standing.Standing | None = None,
    ) -> None:
        self._before = before
        self._taken_over = taken_over or {}
        self.plan, self.folder, self.listener, self.pool = plan, folder, listener, pool
        if isinstance(plan.suite, Suite):
            self.plan = devices.settled(plan, plan.suite, pool.largest)
        self.order = priority.order(self.plan, pool.size)
        self.stopping = False  # what is at work was told to stop
        self.signals = Signals()
        self.summary = Summary()
        self.pending: set[str] = set()
        self.running: dict[str, JobSpec] = {}
        self._attempts: dict[str, list[dict[str, Any]]] = {}
        self._waiting: dict[str, float] = {}  # job -> when it may be tried again
        self._needs: dict[str, list[str]] = {}  # job -> what it needs, but those that were made and looked at
        self._blocked_by: dict[str, str] = {}  # job -> the failed one that it would have needed
        self._lost = 0  # jobs that had failed or were blocked when that was last looked at
        self._live = live.Live(folder)
        self._no_room: str | None = None
        self._selected: set[str] = set()
        self._elsewhere: list[str] = []  # what goes on there though the run was stopped

    def run(self, selected: set[str]) -> Summary:
        """Run everything that is to do.

        Raises:
            InputError: another run holds this folder.
            DiskFull: its disk is full.
            Interrupted: the user, or a scheduler, stopped it; running jobs keep a checkpoint.
        """
        with standing.held(self.folder), self.signals:
            return self._run(selected)

    def _run(self, selected: set[str]) -> Summary:
        began = _now()
        safe_files.sweep(standing.folders(self.folder), older=True)
        found = standing.look(self.plan, self.folder, self._before)
        write_suite(self.plan, self.folder, self.pool.threads, found.labels)
        self._selected = selected
        self.pending = standing.to_do(self.plan, self.folder, selected, found.states)
        damaged = {one: [what] for one, what in found.damaged.items() if one in self.pending}
        damaged |= self._without_damaged_checkpoints(
            one for one in self.plan.jobs if found.states[one] == record.COMPLETE
        )
        self.summary = Summary(
            skipped=[one for one in self.plan.jobs if one in (selected - self.pending) and one not in self._taken_over],
            taken_over={one: suite for one, suite in self._taken_over.items() if one not in self.pending},
            not_selected=[one for one in self.plan.jobs if one not in selected],
            damaged=damaged,
        )
        code = Interrupted.exit_code
        try:
            self._live.begin()
            may_start = True
            while not self._is_over():
                if may_start:
                    self._hand_out()
                may_start = self._listen()
            if self._asked_to_stop():
                self._wind_down()
            self._raise_if_stopped()
            code = exit_code(self.summary)
        except KeyboardInterrupt:
            self._wind_down()
            raise Interrupted(self._interrupted()) from None
        except BenchError as error:
            code = error.exit_code
            raise
        finally:
            self.pool.close()
            self._live.write(self._reasons(), self._blocked_by, last=True)
            self._keep_record(began, code)
        return self.summary

    def _without_damaged_checkpoints(self, complete: Iterable[str]) -> dict[str, list[str]]:
        """Delete checkpoints that complete jobs keep for others and that are not whole: the others then train those steps."""
        deleted = {}
        for job_id in complete:
            found = seal.damaged_checkpoints(self.folder / "jobs" / job_id)
            for path in found:
                seal.delete_checkpoint(path)
            if found:
                deleted[job_id] = [f"checkpoint {what}; deleted" for what in found.values()]
        return deleted

    def _is_over(self) -> bool:
        return self._asked_to_stop() or not (self.pending or self.running)

    def _asked_to_stop(self) -> bool:
        return self.signals.first is not None or self._no_room is not None

    def _stops(self) -> bool:
        return self.stopping or self._asked_to_stop()

    def _raise_if_stopped(self) -> None:
        if self._no_room is not None:
            done = {*self.summary.made, *self.summary.skipped, *self.summary.taken_over}
            left = [one for one in self._selected if one not in done]
            raise space.full(self.folder, space.needed(self.plan, self.folder, left, self.pool.size)[0])
        if self.signals.first is not None:
            raise Interrupted(self._interrupted())

    def _interrupted(self) -> str:
        how = "" if self.signals.first in (None, "SIGINT") else f" by {self.signals.first}"
        elsewhere = "".join(f"; {what}" for what in dict.fromkeys(self._elsewhere))
        return f"interrupted{how}; checkpoints are kept in {self.folder}, the same command goes on{elsewhere}"

    def _goes_on(self, job: JobSpec) -> list[str]:
        """Return what of a job that was stopped goes on elsewhere, in words."""
        from bench.run import preflight

        folder = self.folder / "jobs" / job.id
        return [said for one in preflight.evaluators_of(self.plan.suite) if (said := one.goes_on(job.kind, folder))]

    def _keep_record(self, began: str, code: int) -> None:
        """Put on record how the run ended: a scheduler's log may be gone, and its exit code with it."""
        value = {
            "schema": record.SCHEMA,
            "began": began,
            "ended": _now(),
            "exit_code": code,
            "signal": self.signals.first,
            "workers": self.pool.size,
            "threads": self.pool.threads,
            **vars(self.summary),
        }
        with contextlib.suppress(OSError):
            record.write_json(self.folder / LAST_RUN, value)

    def _hand_out(self) -> None:
        """Give every idle place a job whose needs are met, the longest chain first; drop the jobs whose needs failed."""
        if any(job.alone for job in self.running.values()):
            return
        self._drop_blocked()
        now = time.monotonic()
        full = False  # a job waits for devices: none that could do with fewer goes before it
        for job_id in [one for one in self.order if one in self.pending]:
            job = self.plan.jobs[job_id]
            if not (full and not job.resources.network_only) and self._is_ready(job, now):
                if self._is_blocked(job):
                    continue
                if not self._start(job):
                    full = full or not job.resources.network_only
                if job.alone:
                    return

    def _drop_blocked(self) -> None:
        """Drop every job that needs a failed one, wherever more have failed than when this was last looked at."""
        lost = len(self.summary.failed) + len(self.summary.blocked)
        if lost == self._lost:
            return
        for job_id in [one for one in self.order if one in self.pending]:
            self._is_blocked(self.plan.jobs[job_id])
        self._lost = len(self.summary.failed) + len(self.summary.blocked)

    def _is_blocked(self, job: JobSpec) -> bool:
        """Say whether a pending job needs a failed one, and drop it if so."""
        if not self.summary.failed:
            return False
        by = next((one for one in job.needs if one in self.summary.failed or one in self._blocked_by), None)
        if by is None:
            return False
        self.pending.discard(job.id)
        self.summary.blocked.append(job.id)
        self._blocked_by[job.id] = self._blocked_by.get(by, by)
        return True

    def _is_ready(self, job: JobSpec, now: float) -> bool:
        """Say whether a pending job may start: all it needs is complete, its next attempt is due, and nothing is in its way."""
        waits = self._waits_for(job) or self._waiting.get(job.id, now) > now
        return not waits and not (job.alone and self.running)

    def _waits_for(self, job: JobSpec) -> str | None:
        """Return a job that a pending one needs and that is still to be made; None where there is none.

        Needs that are made are not looked at again, so that thousands of jobs that wait cost next to nothing.
        """
        left = self._needs.get(job.id)
        if left is None:
            left = self._needs[job.id] = list(job.needs)
        while left and left[-1] not in self.pending and left[-1] not in self.running:
            left.pop()
        return left[-1] if left else None

    def _start(self, job: JobSpec) -> bool:
        """Give a job to an idle place; say whether there was one."""
        place = self.pool.idle(job)
        if place is None:
            return False
        self.pending.discard(job.id)
        self.running[job.id] = job
        self.listener.started(job)
        self._live.started(job.id)
        self.pool.give(place, job, self._attempts.get(job.id, []))
        return True

    def _listen(self) -> bool:
        """Wait for news of a job, a signal, or the time to try a job again; say whether a place may have become idle."""
        now = time.monotonic()
        due = [when - now for one, when in self._waiting.items() if one in self.pending]
        times = [when for when in due if when > 0]
        write = self._live.due(now)
        events = self.pool.events(
            min([*times, *([] if write is None else [write])], default=None), self.signals.fileno()
        )
        self._hear(events)
        self._show()
        return not events or len(times) < len(due) or any(event.kind != "progress" for event in events)

    def _show(self) -> None:
        """Say for others to read what the run is doing, where it is time to."""
        if self._live.due(time.monotonic()) == 0.0:
            self._live.write(self._reasons(), self._blocked_by)

    def _reasons(self) -> dict[str, str]:
        """Say of every pending job what it waits for: a job that it needs, the time of its next attempt, or a worker."""
        found = {}
        now = time.monotonic()
        for job_id in self.order:
            if job_id in self.pending:
                again = self._waiting.get(job_id, now) - now
                later = f"its next attempt in {again:.0f} s" if again > 0 else live.A_PLACE
                found[job_id] = self._waits_for(self.plan.jobs[job_id]) or later
        return found

    def _hear(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind == "progress":
                self.listener.progress(event.job, event.message)
                self._live.progress(event.job.id, event.message)
                continue
            del self.running[event.job.id]
            self._live.ended(event.job.id)
            if event.kind == "done":
                self._note(event.job, event.message)
            else:
                self._record_death(event.job, event.message["message"])

    def _note(self, job: JobSpec, status: dict[str, Any]) -> None:
        """Count what became of a job, or have it tried again."""
        if status.get("error") == DiskFull.__name__:
            self._no_room = str(status["message"])
        for what in status.get("healed", ()):
            self.summary.damaged.setdefault(job.id, []).append(what)
        if self._again(job, status):
            self.listener.retried(job, status)
            return
        if status["outcome"] == record.COMPLETE:
            self.summary.made.append(job.id)
        elif self._no_room is None and not (status["outcome"] == record.STOPPED and self._stops()):
            self.summary.failed[job.id] = status["message"]
        self.listener.ended(job, status)

    def _again(self, job: JobSpec, status: dict[str, Any]) -> bool:
        """Put a job back that did not fail by its own fault; say whether it was."""
        if self._stops() or status["outcome"] == record.COMPLETE:
            return False
        attempts = self._attempts.setdefault(job.id, [])
        damaged = status.get("damaged_input")
        stopped = status["outcome"] == record.STOPPED  # somebody told this worker alone
        if not (damaged or stopped or status.get("transient")) or len(attempts) >= self.plan.suite.retries:
            return False
        attempts.append({name: status.get(name) for name in ("error", "message", "finished")})
        self.summary.retried[job.id] = len(attempts)
        self.pending.add(job.id)
        if damaged in self.plan.jobs:
            self.pending.add(damaged)
            self._needs.clear()  # it is to be made once more
            self.summary.damaged.setdefault(damaged, []).append(str(status["message"]))
            self.summary.taken_over.pop(damaged, None)
            for kept in (self.summary.made, self.summary.skipped):
                if damaged in kept:
                    kept.remove(damaged)
        elif status.get("error") not in (WORKER_DIED, Interrupted.__name__):
            self._waiting[job.id] = time.monotonic() + RETRY_SECONDS * 4 ** (len(attempts) - 1)
        return True

    def _record_death(self, job: JobSpec, how: str) -> None:
        """Say of a job that its worker died; where it is not tried again, that is put on record."""
        if self._stops():  # by what stops the run, or by us
            return
        status: dict[str, Any] = {
            "schema": record.SCHEMA,
            "outcome": record.FAILED,
            "error": WORKER_DIED,
            "message": f"{how}; its checkpoint, if any, is kept",
            "transient": True,
            "finished": _now(),
        }
        self._note(job, status)
        if job.id in self.summary.failed:
            status["attempts"] = self._attempts.get(job.id, [])
            try:
                record.write_json(self.folder / "jobs" / job.id / "status.json", status)
            except OSError as error:
                if not is_full(error):
                    raise
                self._no_room = str(error)

    def _wind_down(self) -> None:
        """Ask the workers to keep a checkpoint and stop; a second Ctrl-C does not wait."""
        self.stopping = True
        self.pool.stop()
        self._elsewhere += [said for job in self.running.values() if job.kind != "train" for said in self._goes_on(job)]
        with contextlib.suppress(KeyboardInterrupt):
            while self.running and not self.signals.hurried:
                self._hear(self.pool.events(0.2))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def exit_code(summary: Summary) -> int:
    """Return 0 when all that was selected is complete, 1 when a job failed."""
    return 1 if summary.failed or summary.blocked else 0
