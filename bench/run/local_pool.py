"""The pool of this machine: a worker process a device, and one beside them for what only waits for a network."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from bench.records import record
from bench.records.spec import JobSpec
from bench.run import gpus, thread_counts, worker
from bench.run.pool import Event, check_room
from bench.suite.suite import Experiment, Suite

PROCESSES = 8  # that a job may be split into at least where there are no GPUs: it is then tried out, not sped up


@dataclass
class _Place:
    """A worker process.

    Attributes:
        slots: which of the pool's devices, or shares of the processors, are its own.
        alone: whether it has all of the machine.
        job: what it is at work on.
    """

    process: Any
    pipe: Any
    slots: tuple[int, ...]
    alone: bool
    job: JobSpec | None = None

    def end(self) -> None:
        """Let the process go home."""
        self.pipe.close()
        self.process.join(timeout=10)
        self.process.kill()


class LocalPool:
    """Worker processes of this machine.

    Args:
        suite: what they work for.
        folder: the suite's results.
        mirror: an offline mirror of the hub, if there is one.
        size: devices, or shares of the processors, that they have between them.
        threads: of a job on one of these.
        threads_alone: of a job that has the machine for itself.
        sharing: workers on the machine, those of other pools too; `size` when left out.
    """

    def __init__(
        self,
        suite: Experiment,
        folder: Path,
        mirror: Path | None = None,
        *,
        size: int,
        threads: int,
        threads_alone: int,
        sharing: int | None = None,
    ) -> None:
        self.suite, self.folder, self.mirror = suite, folder, mirror
        self.size = size
        self.threads, self.threads_alone = threads, threads_alone
        self._sharing = size if sharing is None else sharing
        self._gpus = gpus.visible()
        self.largest = size if self._gpus else max(size, os.cpu_count() or 1, PROCESSES)
        self._context = multiprocessing.get_context("spawn")
        self._places: list[_Place] = []
        self._died: list[Event] = []  # while they were given a job

    def check(self, jobs: Sequence[JobSpec]) -> None:
        check_room(self, jobs)
        if isinstance(self.suite, Suite):  # a toy trains without torch
            gpus.check()

    def idle(self, job: JobSpec) -> _Place | None:
        resources = job.resources
        count = 0 if resources.network_only else max(1, self._slots(resources.devices))
        for one in [one for one in self._places if one.job is None]:
            if not one.process.is_alive():
                self._end(one)
            elif one.alone == job.alone and len(one.slots) == count:
                return one
        if job.alone:
            self.close()
            return self._start(tuple(range(count)), alone=True)
        if count == 0:
            return None if any(not one.slots for one in self._places) else self._start(())
        slots = self._make_room(count)
        return None if slots is None else self._start(slots)

    def _slots(self, devices: int) -> int:
        """Return how many slots a job takes: without GPUs more devices than there are share what there is."""
        return devices if self._gpus else min(devices, self.size)

    def _make_room(self, count: int) -> tuple[int, ...] | None:
        """Find so many free slots, if need be by ending idle workers of another shape; None while others are at work on them."""
        busy = {slot for one in self._places if one.job for slot in one.slots}
        if self.size - len(busy) < count:
            return None
        resting = [one for one in self._places if one.slots and not one.job]
        while True:
            taken = busy | {slot for one in resting for slot in one.slots}
            free = [slot for slot in range(self.size) if slot not in taken]
            if len(free) >= count:
                return tuple(free[:count])
            self._end(resting.pop())

    def _start(self, slots: tuple[int, ...], *, alone: bool = False) -> _Place:
        own = dict.fromkeys(self._gpus[slot % len(self._gpus)] for slot in slots) if self._gpus else ()
        config = worker.WorkerConfig(
            self.suite,
            self.folder,
            self.mirror,
            visible_gpu=",".join(own) or None,
            # Of a job that runs alone: the whole machine is its own, whatever the number of workers otherwise.
            threads=self.threads_alone if alone else self.threads * len(slots) or 1,
            workers=1 if alone else self._sharing,
        )
        place = self._spawn(config, slots, alone)
        self._places.append(place)
        return place

    def _spawn(self, config: worker.WorkerConfig, slots: tuple[int, ...], alone: bool) -> _Place:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=worker.main, args=(theirs, config), daemon=False)
        process.start()
        theirs.close()
        return _Place(process, ours, slots, alone)

    def _end(self, one: _Place) -> None:
        self._places.remove(one)
        one.end()

    def give(self, place: _Place, job: JobSpec, attempts: Sequence[dict[str, Any]]) -> None:
        place.job = job
        try:
            place.pipe.send((job, attempts))
        except OSError:  # it ended just now
            self._died.append(self._death(place))

    def events(self, wait: float | None, wake: int | None = None) -> list[Event]:
        found, self._died = self._died, []
        busy = {one.pipe: one for one in self._places if one.job}
        others = [] if wake is None else [wake]
        if not found and (busy or wait is not None):
            ready = connection.wait([*busy, *others], wait)
            found = [event for one in ready if one in busy for event in self._hear(busy[one])]
        return found

    def _hear(self, one: _Place) -> Iterator[Event]:
        job = one.job
        assert job is not None
        try:
            kind, message = one.pipe.recv()
        except (EOFError, OSError):
            yield self._death(one)
            return
        if kind == "done":
            one.job = None
            # Broken by what broke the job, told to go, or of a size that no other job has.
            if message.get("transient") or message["outcome"] == record.STOPPED or one.alone:
                self._end(one)
        yield Event(job, kind, message)

    def _death(self, one: _Place) -> Event:
        one.process.join()
        code = one.process.exitcode
        how = f"signal {-code}" + (" (often: out of memory)" if code == -9 else "") if code < 0 else f"exit code {code}"
        job = one.job
        assert job is not None
        self._places.remove(one)
        return Event(job, "died", {"message": f"the worker process ended with {how}"})

    def stop(self) -> None:
        for one in self._places:
            if one.job and one.job.kind == "train":
                one.process.terminate()  # it takes that as `signals.Told` does
            elif one.job:
                one.process.kill()

    def close(self) -> None:
        for one in self._places:
            if one.job:
                one.process.kill()
        while self._places:
            self._places.pop().end()


def of_this_machine(
    suite: Experiment, folder: Path, mirror: Path | None = None, workers: int | None = None, threads: int | None = None
) -> LocalPool:
    """Return a pool of so many workers, one a GPU, or one, when left out.

    Raises:
        InputError: another number of threads than the folder's records were made with.
    """
    size = workers or gpus.default_workers()
    of_job, alone = thread_counts.of_folder(folder, size, threads)
    return LocalPool(suite, folder, mirror, size=size, threads=of_job, threads_alone=alone)
