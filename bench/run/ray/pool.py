"""The pool of a Ray cluster: an actor a device on every node, each with a worker process that keeps model and data.

Ray says which nodes there are, keeps their devices for us and carries jobs and news. What only asks a network runs beside the
command, with the keys of its environment. docs/decisions/pool.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from bench.errors import InputError
from bench.records.spec import JobSpec
from bench.run import local_pool, space, thread_counts
from bench.run.pool import Event, check_room
from bench.run.ray import nodes as ray_nodes
from bench.run.ray import place as ray_place
from bench.run.ray.nodes import Node
from bench.suite.suite import Experiment

_LOOK_SECONDS = 0.5  # between two looks at what else may have happened
_CALM_SECONDS = 10.0  # for an idle worker to answer, or to go home


@dataclass(eq=False)
class _Seat:
    """An actor.

    Attributes:
        slots: of its node that are its own.
        alone: whether its job has the node for itself.
        taken: what it has, by Ray's names.
        news: what it will say of its job.
        used: whether it has had a job, so that it can be asked whether it is there without waiting for its start.
    """

    node: Node
    slots: int
    alone: bool
    taken: Mapping[str, float]
    actor: Any
    job: JobSpec | None = None
    news: Any = None
    used: bool = False


class RayPool:
    """Places on the nodes of a cluster, which come and go.

    Args:
        ray: the library, connected.
        suite: what they work for.
        folder: the suite's results, on a file system that all nodes share.
        mirror: an offline mirror of the hub, if there is one.
        workers: jobs that compute at the same time; as many as there are devices, when left out.
        threads: of each job; those of the folder's first run when left out.
        tell: hears of nodes that come and go.

    Raises:
        InputError: no node has anything to compute with, or another number of threads than the folder's.
    """

    def __init__(
        self,
        ray: Any,
        suite: Experiment,
        folder: Path,
        mirror: Path | None,
        workers: int | None,
        threads: int | None,
        tell: Callable[[str], None],
    ) -> None:
        self.suite, self.folder, self.mirror = suite, folder, mirror
        self._ray, self._most = ray, workers
        self._seats: list[_Seat] = []
        self._here = local_pool.LocalPool(suite, folder, mirror, size=0, threads=1, threads_alone=1, sharing=1)
        self.nodes = ray_nodes.Nodes(ray, suite, folder, mirror, tell)
        shares = [one.processors // max(1, one.gpus) for one in self.nodes.computing()]
        if not shares:
            raise InputError("--engine ray: no node of the cluster has processors to give; `ray start` them with some")
        self._asked = threads
        self.threads, _ = thread_counts.of_folder(folder, 1, threads, max(1, min(shares)))

    def _slots(self, node: Node) -> int:
        """Count the jobs of one device that a node has room for."""
        if self.nodes.have_gpus:
            return node.gpus
        return max(1, node.processors // self.threads) if node.processors else 0

    @property
    def size(self) -> int:
        every = sum(map(self._slots, self.nodes.computing()))
        return every if self._most is None else min(every, self._most)

    @property
    def largest(self) -> int:
        return min(self.size, max(map(self._slots, self.nodes.computing()), default=0))

    def check(self, jobs: Sequence[JobSpec]) -> None:
        check_room(self, jobs)
        most = max(one.memory for one in self.nodes.computing())
        for job in jobs:
            need = job.resources.memory_bytes or 0
            if need > most and not self.nodes.have_gpus:
                raise InputError(
                    f"{job.id} needs {space.in_words(need)} of memory; a node has {space.in_words(most)} at most"
                )
        self.nodes.check()

    def idle(self, job: JobSpec) -> _Seat | Any | None:
        if job.resources.network_only:
            return self._here.idle(job)
        count = max(1, job.resources.devices)
        for seat in [one for one in self._seats if one.job is None]:
            if (seat.slots, seat.alone) == (count, job.alone) and seat.node.usable and self._is_there(seat):
                return seat
        if job.alone:
            self._end([one for one in self._seats if one.job is None])
        node = self._with_room(count, job)
        if node is None:
            return None
        self._end(self._in_the_way(node, count))
        return self._seat(node, count, job)

    def _is_there(self, seat: _Seat) -> bool:
        """Ask an idle worker whether it is there; it is forgotten if not."""
        try:
            return not seat.used or bool(self._ray.get(seat.actor.is_there.remote(), timeout=_CALM_SECONDS))
        except self._ray.exceptions.RayError:
            self._lost(seat, "")
            return False

    def _with_room(self, count: int, job: JobSpec) -> Node | None:
        """Find a node with so many free slots, once idle workers of another shape have ended; None while there is none."""
        busy = [one for one in self._seats if one.job]
        if self.size - sum(one.slots for one in busy) < count:
            return None
        self.nodes.see_head()
        available = self._ray._private.state.available_resources_per_node()
        for node in sorted(self.nodes.computing(), key=self._free, reverse=True):
            taken = sum(one.slots for one in busy if one.node is node)
            if node.usable and self._slots(node) - taken >= count and self._has(node, count, job, available):
                return node
        return None

    def _free(self, node: Node) -> int:
        return self._slots(node) - sum(one.slots for one in self._seats if one.node is node)

    def _has(self, node: Node, count: int, job: JobSpec, available: Mapping[str, Mapping[str, float]]) -> bool:
        """Say whether a node has what a job takes, with what idle workers give back: others may work on the cluster, too."""
        free, idle = available.get(node.id, {}), [one for one in self._seats if one.node is node and not one.job]
        return all(
            free.get(name, 0) + sum(one.taken.get(name, 0) for one in idle) >= need
            for name, need in self._taken(node, count, job).items()
        )

    def _in_the_way(self, node: Node, count: int) -> list[_Seat]:
        """List the idle workers that must end for so many slots: of the node, and of others where there may be no more in all."""
        idle = [one for one in self._seats if not one.job]
        idle.sort(key=lambda one: one.node is not node)
        here, room = self._free(node), self.size - sum(one.slots for one in self._seats)
        found = []
        for one in idle:
            if here < count if one.node is node else room < count:
                found.append(one)
                here += one.slots if one.node is node else 0
                room += one.slots
        return found

    def _taken(self, node: Node, count: int, job: JobSpec) -> dict[str, float]:
        """Say what a job takes of a node, by Ray's names. The memory of a machine with GPUs is not what they compute in."""
        if self.nodes.have_gpus:
            processors = min(self.threads * count, node.processors * count // node.gpus)
            return {"GPU": job.resources.devices, "CPU": processors}
        processors = min(self.threads * count, node.processors)
        return {"CPU": job.resources.processors or processors, "memory": job.resources.memory_bytes or 0}

    def _seat(self, node: Node, count: int, job: JobSpec) -> _Seat:
        taken = self._taken(node, count, job)
        beside = sum(self._slots(one) for one in self.nodes.computing() if one.address == node.address)
        share = ray_place.Share(
            self.suite,
            self.folder,
            self.mirror,
            size=count,
            threads=self.threads,
            threads_alone=thread_counts.of_folder(self.folder, 1, self._asked, node.processors)[1],
            sharing=beside if self._most is None else min(beside, self._most),
            on_gpus=self.nodes.have_gpus,
            working_folder=str(Path.cwd()),
        )
        place = self._ray.remote(ray_place.RayPlace).options(
            num_gpus=taken.get("GPU", 0),
            num_cpus=taken["CPU"],
            memory=taken.get("memory") or None,
            scheduling_strategy=node.affinity,
            max_restarts=0,
            max_concurrency=4,  # it can be told to stop while it listens
        )
        seat = _Seat(node, count, job.alone, taken, place.remote(share))
        self._seats.append(seat)
        return seat

    def give(self, place: Any, job: JobSpec, attempts: Sequence[dict[str, Any]]) -> None:
        if isinstance(place, _Seat):
            place.job, place.used = job, True
            place.news = place.actor.listen.remote(job, list(attempts))
        else:
            self._here.give(place, job, attempts)

    def events(self, wait: float | None, wake: int | None = None) -> list[Event]:
        patience = _LOOK_SECONDS if wait is None else min(wait, _LOOK_SECONDS)
        self.nodes.see_head()
        busy = {one.news: one for one in self._seats if one.job}
        if busy:
            ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=patience)
            found = [event for one in ready for event in self._hear(busy[one])]
            found += self._here.events(0.0)
        else:
            found = self._here.events(patience, wake)
        for node in self.nodes.that_left():
            for seat in [one for one in self._seats if one.node is node]:
                found += self._lost(seat, f"node {node.address} left the cluster")
        return found

    def _hear(self, seat: _Seat) -> Iterator[Event]:
        job = seat.job
        assert job is not None
        try:
            news = self._ray.get(seat.news)
        except self._ray.exceptions.RayError as error:
            self.nodes.see_head(now=True)
            why = "its node left the cluster" if "node has died" in str(error) else "it ended unasked"
            yield from self._lost(seat, f"the worker on node {seat.node.address} is gone: {why}")
            return
        for kind, message in news:
            if kind != "progress":
                seat.job = None
                if seat.alone:
                    self._end([seat])
                if kind == "died":
                    message = {"message": f"on node {seat.node.address} {message['message']}"}
            yield Event(job, cast(Literal["progress", "done", "died"], kind), message)
        if seat.job:  # one listens at a time, else the news would be split between two
            seat.news = seat.actor.listen.remote()

    def _lost(self, seat: _Seat, how: str) -> list[Event]:
        """Forget an actor that is gone, and doubt its node; say of its job that it died."""
        self._seats.remove(seat)
        self._ray.kill(seat.actor)
        self.nodes.doubt(seat.node)
        return [Event(seat.job, "died", {"message": how})] if seat.job else []

    def _end(self, seats: Sequence[_Seat]) -> None:
        """Let idle workers go home, and end those at work."""
        self._seats = [one for one in self._seats if one not in seats]
        going = [one.actor.close.remote() for one in seats if one.used]
        if going:
            self._ray.wait(going, num_returns=len(going), timeout=_CALM_SECONDS)
        for one in seats:
            self._ray.kill(one.actor)

    def stop(self) -> None:
        for one in self._seats:
            if one.job:
                one.actor.stop.remote()
        self._here.stop()

    def close(self) -> None:
        self._here.close()
        self.nodes.forget()
        if not self.nodes.gone:  # else all places are gone with it, and to ask it to end them would be to wait for it
            self._end(list(self._seats))


def of_cluster(
    suite: Experiment,
    folder: Path,
    mirror: Path | None,
    workers: int | None,
    threads: int | None,
    address: str | None,
    tell: Callable[[str], None],
) -> RayPool:
    """Connect to a cluster and return the pool of its nodes.

    Args:
        address: of its head, as `ray start --head` prints it; None: $RAY_ADDRESS, the cluster that this machine is part of, or
            one that is started on this machine for the run.

    Raises:
        InputError: no Ray, no cluster, or a folder that not every node would find.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray needs the package ray: pip install 'posttrain-bench[ray]'")
    if not folder.is_absolute():
        raise InputError(
            f"--results {folder.parent}: with --engine ray it must be an absolute path, on a file system that every node shares"
        )
    return RayPool(ray_nodes.connect(address), suite, folder, mirror and mirror.resolve(), workers, threads, tell)
