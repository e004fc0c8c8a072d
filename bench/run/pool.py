"""Where jobs run, behind one seam: `Execution` walks the plan and asks a pool who is idle and what became of what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bench.errors import InputError
from bench.records.spec import JobSpec


@dataclass(frozen=True)
class Event:
    """News of a job that a pool was given.

    Attributes:
        kind: `progress`; `done`, it left the record that `message` holds; `died`, what it ran on went away, as `message` says.
    """

    job: JobSpec
    kind: Literal["progress", "done", "died"]
    message: dict[str, Any]


class Pool(Protocol):
    """Places that keep models and data between jobs, each of a shape: so many devices, the whole machine, or a network only."""

    @property
    def size(self) -> int:
        """Jobs of one device that can compute at the same time."""

    @property
    def largest(self) -> int:
        """Devices that one job can have."""

    @property
    def threads(self) -> int:
        """Threads that a job computes with on each."""

    def check(self, jobs: Sequence[JobSpec]) -> None:
        """Refuse, before anything is loaded, what would fail later.

        Raises:
            InputError: says what is wrong with where the jobs would run.
        """

    def idle(self, job: JobSpec) -> Any | None:
        """Return an idle place that has what the job needs, started for it if need be; None while there is none.

        A job that is to run alone is asked for only while nothing else runs.
        """

    def give(self, place: Any, job: JobSpec, attempts: Sequence[dict[str, Any]]) -> None:
        """Start a job on an idle place; how earlier attempts at it ended goes on its record."""

    def events(self, wait: float | None, wake: int | None = None) -> Sequence[Event]:
        """Wait for news.

        A place whose job met a transient fault, was told to stop or ran alone is not used again: a fresh one takes its place.

        Args:
            wait: at most so many seconds; None: until there is some, or until there may be new room.
            wake: a file descriptor that also ends the wait once it is readable.
        """

    def stop(self) -> None:
        """Ask what is at work to keep a checkpoint and end, as `done` or `died` will say.

        Only training has something to keep. The other jobs are short or, like a judge's replies, on disk already.
        """

    def close(self) -> None:
        """End every place, and at once what is still at work."""


def check_room(pool: Pool, jobs: Iterable[JobSpec]) -> None:
    """Refuse a job for which the pool will never have a place.

    Raises:
        InputError: says what it needs, and what there is.
    """
    for job in jobs:
        if job.resources.devices > pool.largest:
            raise InputError(
                f"{job.id} computes on {job.resources.devices} devices at once, and a job can have {pool.largest} here: "
                "give more --workers, or run it where there are more"
            )
