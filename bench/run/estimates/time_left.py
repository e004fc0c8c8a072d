"""How long a run still takes: the rest of its plan walked ahead, with each job as long as those like it were."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.plan import priority, schedule
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import JobSpec
from bench.run.estimates.durations import Durations, Guess, Took, Work, of_job

KNOWN_SHARE = 0.75  # of the time that is left, which has to be known for a word to be said of it
_FEW_STEPS = 5  # of a run at work, and its seconds, before its pace counts
_SHORT_SECONDS = 20.0
_OVERDUE = 0.1  # what a job that takes longer than those like it is believed to take still, of what it took
_SHARE_OF_TIME = 0.003  # that may go into looking ahead


@dataclass
class _Pace:
    """A training job at work: when it was at which step first and last."""

    began: float
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None
    steps: int = 0

    def note(self, now: float, step: int, steps: int) -> None:
        self.first = self.first or (now, step)
        self.last, self.steps = (now, step), steps

    @property
    def seconds_a_step(self) -> float | None:
        """Return its pace; None before there is enough of it."""
        if self.first is None or self.last is None:
            return None
        seconds, steps = self.last[0] - self.first[0], self.last[1] - self.first[1]
        return seconds / steps if steps >= _FEW_STEPS and seconds >= _SHORT_SECONDS else None


class TimeLeft:
    """Follow a run, and say how long it still takes.

    Args:
        plan: which.
        pending: the jobs that are to run.
        places: of the pool.
        past: what such jobs took on this machine before.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        plan: Plan,
        pending: Iterable[str],
        places: int,
        past: Iterable[Took] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        wanted = set(pending)
        self._jobs = plan.jobs
        self._order = priority.order(plan, places)
        self._rough = priority.rough_costs(plan)
        self._left: dict[str, Work] = {one: of_job(job) for one, job in plan.jobs.items() if one in wanted}
        self._behind: dict[str, list[str]] = {}
        for job_id in self._left:
            for one in plan.jobs[job_id].needs:
                self._behind.setdefault(one, []).append(job_id)
        self._running: dict[str, _Pace] = {}
        self._places, self._clock = places, clock
        self._durations = Durations(past)
        self._said: tuple[float, float | None] | None = None  # when it was looked ahead, and what came of it
        self._next = 0.0
        self._lock = threading.RLock()  # a live view is drawn by a thread of its own

    def started(self, job: JobSpec) -> None:
        with self._lock:
            self._running[job.id] = _Pace(self._clock())

    def progress(self, job: JobSpec, message: Mapping[str, Any]) -> None:
        with self._lock:
            if "step" in message and job.id in self._running:
                self._running[job.id].note(self._clock(), message["step"], message["steps"])

    def retried(self, job: JobSpec) -> None:
        with self._lock:
            self._running.pop(job.id, None)

    def ended(self, job: JobSpec, status: Mapping[str, Any]) -> None:
        with self._lock:
            self._running.pop(job.id, None)
            work = self._left.pop(job.id, None) or of_job(job)
            if status["outcome"] == record.COMPLETE:
                if "seconds" in status:
                    self._durations.add(Took(work, status["seconds"], bool(status.get("first_of_kind"))))
            else:
                self._drop_behind(job.id)

    def _drop_behind(self, job_id: str) -> None:
        """Take out what will never run, as it needs a job that failed."""
        left = list(self._behind.get(job_id, ()))
        while left:
            one = left.pop()
            if self._left.pop(one, None) is not None:
                left += self._behind.get(one, ())

    def seconds(self) -> float | None:
        """Return the seconds left; None while too little is known of the jobs that take most of them."""
        with self._lock:
            now = self._clock()
            if self._said is None or now >= self._next:
                began = time.monotonic()
                self._said = now, self._look_ahead(now)
                self._next = now + (time.monotonic() - began) / _SHARE_OF_TIME
            at, left = self._said
            return None if left is None else max(0.0, left - (now - at))

    def _look_ahead(self, now: float) -> float | None:
        if not self._left:
            return 0.0
        found = self._found()
        left = {one: found[one].seconds for one in self._left if one in found and one not in self._running}
        running = {one: self._of_running(pace, found.get(one), now) for one, pace in self._running.items()}
        unknown = [one for one in self._left if one not in found]
        known = {**left, **{one: value for one, value in running.items() if value is not None}}
        rough = sum(self._rough[one] for one in self._left if one in found)
        if not rough or not known:
            return None
        # What nothing is known of is taken for what the plan roughly says of it, beside what it says of the others.
        scale = sum(found[one].seconds for one in self._left if one in found) / rough
        guessed = {one: self._rough[one] * scale for one in unknown}
        sure = sum(value for one, value in known.items() if one not in found or found[one].sure)
        total = sum(known.values()) + sum(value for one, value in guessed.items() if one not in known)
        if sure < KNOWN_SHARE * total:
            return None
        waiting = left | {one: value for one, value in guessed.items() if one not in self._running}
        at_work = {one: guessed.get(one, 0.0) if value is None else value for one, value in running.items()}
        ends = schedule.simulate(self._jobs, self._order, waiting, self._places, at_work)
        return max(ends.values(), default=0.0)

    def _found(self) -> dict[str, Guess]:
        """Guess every job that is left, also by the pace of those at work where nothing else is known of their kind."""
        durations = self._durations
        at_work = [(self._left[one], pace.seconds_a_step) for one, pace in self._running.items() if one in self._left]
        paces = [Took(work, pace * work.steps) for work, pace in at_work if pace is not None]
        new = [one for one in paces if not (known := durations.guess(one.work)) or not known.sure]
        beside = Durations(new) if new else None
        guesses: dict[str, Guess] = {}
        for job_id, work in self._left.items():
            guess = durations.guess(work)
            if beside is not None and not (guess and guess.sure):
                guess = beside.guess(work) or guess
            if guess is not None:
                guesses[job_id] = guess
        return guesses

    def _of_running(self, pace: _Pace, guess: Guess | None, now: float) -> float | None:
        """Return how long a job at work still takes: by its own pace, or by what those like it took; None: not known."""
        took = now - pace.began
        own = pace.seconds_a_step
        if own is not None and pace.last is not None:
            at, step = pace.last
            return max(0.0, (pace.steps - step) * own - (now - at))
        if guess is None:
            return None
        return max(guess.seconds - took, _OVERDUE * took)
