"""When a plan's jobs would end on so many places, by what each takes: the walk of `run/execute.py`, without its work."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from bench.records.spec import JobSpec


def simulate(
    jobs: Mapping[str, JobSpec],
    order: Sequence[str],
    seconds: Mapping[str, float],
    places: int,
    running: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return job -> when it ends, in seconds from now, as the plan would be walked.

    Args:
        jobs: the plan's; what is named in neither `seconds` nor `running` is made already.
        order: who goes first of those that could run.
        seconds: how long each job that has not begun takes.
        places: jobs of one device that compute at the same time; one more place is for what only waits for a network.
        running: job -> how long it still takes.
    """
    return _Walk(jobs, order, seconds, places).walk(running or {})


class _Walk:
    def __init__(
        self, jobs: Mapping[str, JobSpec], order: Sequence[str], seconds: Mapping[str, float], places: int
    ) -> None:
        self.jobs, self.order, self.seconds = jobs, order, seconds
        self.size, self.free, self.network = places, places, True
        self.place = {job_id: number for number, job_id in enumerate(order)}
        # What could run, by its place in the order: what computes, what only waits for a network, what runs alone.
        self.ready: dict[str, list[int]] = {"computing": [], "network": [], "alone": []}
        self.ends: list[tuple[float, str]] = []
        self.now = 0.0

    def walk(self, running: Mapping[str, float]) -> dict[str, float]:
        ahead = self.seconds.keys() | running.keys()
        waits = {job_id: ahead.intersection(self.jobs[job_id].needs) for job_id in self.seconds}
        behind: dict[str, list[str]] = {}
        for job_id, needs in waits.items():
            for one in needs:
                behind.setdefault(one, []).append(job_id)
        for job_id, left in running.items():
            self._begin(job_id, left)
        for job_id in self.seconds:
            if not waits[job_id]:
                self._wait(job_id)
        found: dict[str, float] = {}
        while True:
            self._hand_out()
            if not self.ends:
                return found
            self.now, job_id = heapq.heappop(self.ends)
            found[job_id] = self.now
            self._end(job_id)
            for one in behind.get(job_id, ()):
                waits[one].discard(job_id)
                if not waits[one]:
                    self._wait(one)

    def _takes(self, job: JobSpec) -> int:
        """Return how many places a job takes: of more devices than there are, all."""
        if job.resources.network_only:
            return 0
        return self.size if job.alone else min(max(1, job.resources.devices), self.size)

    def _wait(self, job_id: str) -> None:
        job = self.jobs[job_id]
        kind = "alone" if job.alone else "network" if job.resources.network_only else "computing"
        heapq.heappush(self.ready[kind], self.place[job_id])

    def _begin(self, job_id: str, seconds: float) -> None:
        takes = self._takes(self.jobs[job_id])
        self.free -= takes
        self.network = self.network and takes > 0
        heapq.heappush(self.ends, (self.now + seconds, job_id))

    def _end(self, job_id: str) -> None:
        takes = self._takes(self.jobs[job_id])
        self.free += takes
        self.network = self.network or takes == 0

    def _next(self, kind: str) -> str | None:
        return self.order[self.ready[kind][0]] if self.ready[kind] else None

    def _hand_out(self) -> None:
        """Begin whatever finds a place; what waits for several devices is not overtaken by what could do with fewer."""
        if self.ends and any(self.jobs[job_id].alone for _, job_id in self.ends[:1]):
            return
        while (job_id := self._next("computing")) and self._takes(self.jobs[job_id]) <= self.free:
            heapq.heappop(self.ready["computing"])
            self._begin(job_id, self.seconds[job_id])
        if (job_id := self._next("network")) and self.network:
            heapq.heappop(self.ready["network"])
            self._begin(job_id, self.seconds[job_id])
        if not self.ends and (job_id := self._next("alone")):
            heapq.heappop(self.ready["alone"])
            self._begin(job_id, self.seconds[job_id])
