"""The pool of a Ray cluster: an actor a device on every node, each with a worker process that keeps model and data.

Ray says which nodes there are, keeps their devices for us and carries jobs and news. What only asks a network runs beside the
command, with the keys of its environment. docs/decisions/pool.md.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from bench.errors import InputError, JobError, one_line
from bench.records import record, safe_files
from bench.records.spec import JobSpec
from bench.run import local_pool, ray_place, thread_counts
from bench.run.pool import Event, check_room
from bench.suite.suite import Experiment, Suite

_LOOK_SECONDS = 0.5  # between two looks at what else may have happened
_NODE_SECONDS = 2.0  # between two looks at which nodes there are
_CHECK_SECONDS = 120.0  # for a node to say what it sees: it imports the package
_CALM_SECONDS = 10.0  # for an idle worker to answer, or to go home
_CONNECT_SECONDS = 5.0


@dataclass(eq=False)
class _Node:
    """A node of the cluster: what it declares. Two on one machine have one address."""

    id: str
    address: str
    processors: int
    gpus: int
    usable: bool = False  # found to share the folder, with our version


@dataclass(eq=False)
class _Seat:
    """An actor.

    Attributes:
        slots: of its node that are its own.
        alone: whether its job has the node for itself.
        news: what it will say of its job.
        used: whether it has had a job, so that it can be asked whether it is there without waiting for its start.
    """

    node: _Node
    slots: int
    alone: bool
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
        self.suite, self.folder, self.mirror, self.tell = suite, folder, mirror, tell
        self._ray, self._most = ray, workers
        self._seats: list[_Seat] = []
        self._here = local_pool.LocalPool(suite, folder, mirror, size=0, threads=1, threads_alone=1)
        self._nodes = {one.id: one for one in self._alive()}
        self._checking: dict[Any, tuple[_Node, Path]] = {}
        self._looked = time.monotonic()
        shares = [one.processors // max(1, one.gpus) for one in self._computing() if one.processors]
        if not shares:
            raise InputError("--engine ray: no node of the cluster has processors to give; `ray start` them with some")
        self._asked = threads
        self.threads, _ = thread_counts.of_folder(folder, 1, threads, max(1, min(shares)))

    # ---- nodes ------------------------------------------------------------------------------------------------------

    def _alive(self) -> Iterator[_Node]:
        for one in self._ray.nodes():
            if one["Alive"]:
                has = one["Resources"]
                yield _Node(one["NodeID"], one["NodeManagerAddress"], int(has.get("CPU", 0)), int(has.get("GPU", 0)))

    @property
    def _on_gpus(self) -> bool:
        """Whether jobs compute on GPUs: where any node has some, nobody wants a model trained on another's processors."""
        return isinstance(self.suite, Suite) and any(one.gpus for one in self._nodes.values())

    def _computing(self) -> list[_Node]:
        return [one for one in self._nodes.values() if one.gpus or not self._on_gpus]

    def _slots(self, node: _Node) -> int:
        """Count the jobs of one device that a node has room for."""
        if self._on_gpus:
            return node.gpus
        return max(1, node.processors // self.threads) if node.processors else 0

    @property
    def size(self) -> int:
        every = sum(map(self._slots, self._nodes.values()))
        return every if self._most is None else min(every, self._most)

    @property
    def largest(self) -> int:
        return min(self.size, max(map(self._slots, self._nodes.values()), default=0))

    def check(self, jobs: Sequence[JobSpec]) -> None:
        check_room(self, jobs)
        asked = {self._look(node): node for node in self._computing()}
        refs = list(asked)
        self._ray.wait(refs, num_returns=len(refs), timeout=_CHECK_SECONDS)
        try:
            for ref, node in asked.items():
                problem = self._problem(ref)
                if problem:
                    raise InputError(f"--engine ray: node {node.address} {problem}")
                node.usable = True
        finally:
            self._forget(refs)

    def _look(self, node: _Node) -> Any:
        """Ask a node what it sees."""
        safe_files.own_folder(self.folder, may_be_link=True)
        token = safe_files.temporary_name(self.folder / "shared")
        token.write_text("", encoding="utf-8")
        look = self._ray.remote(num_cpus=0, max_retries=0)(ray_place.look).options(scheduling_strategy=_on(node))
        ref = look.remote(self.folder, token.name, _paths(self.suite, self.mirror), str(Path.cwd()), self._on_gpus)
        self._checking[ref] = node, token
        return ref

    def _problem(self, ref: Any) -> str:
        """Return what is wrong with a node that was asked; "" for nothing."""
        from bench import __version__

        try:
            version, problem = self._ray.get(ref, timeout=0)
        except self._ray.exceptions.GetTimeoutError:
            return f"did not say within {_CHECK_SECONDS:.0f} s what it sees; is posttrain-bench installed there?"
        except Exception as error:
            lines = str(error).strip().splitlines()
            return f"cannot run bench ({one_line(lines[-1] if lines else type(error).__name__, 200)}); install it there"
        if version != __version__:
            return f"has bench {version}, and this is {__version__}; install the same"
        return (
            f"{problem}; it must be on a file system that every node shares" if "does not see" in problem else problem
        )

    def _forget(self, refs: Iterable[Any]) -> None:
        for ref in refs:
            self._checking.pop(ref)[1].unlink(missing_ok=True)

    def _look_around(self) -> Iterator[Event]:
        """Take in the nodes that joined, once they have said that they share the folder; let go of those that left."""
        for ref in self._ray.wait(list(self._checking), num_returns=1, timeout=0)[0] if self._checking else ():
            node, problem = self._checking[ref][0], self._problem(ref)
            self._forget([ref])
            node.usable = not problem
            self.tell(f"node {node.address} joined" + (f" and is not used: it {problem}" if problem else ""))
        if time.monotonic() - self._looked < _NODE_SECONDS:
            return
        self._looked = time.monotonic()
        alive = {one.id: one for one in self._alive()}
        for node in [one for one in self._nodes.values() if one.id not in alive]:
            del self._nodes[node.id]
            self.tell(f"node {node.address} left" + ("" if self._nodes else "; waiting for another one"))
            for seat in [one for one in self._seats if one.node is node]:
                yield from self._lost(seat, f"node {node.address} left the cluster")
        for node in alive.values():
            if node.id not in self._nodes:
                self._nodes[node.id] = node
                self._look(node)

    # ---- places -----------------------------------------------------------------------------------------------------

    def idle(self, job: JobSpec) -> _Seat | Any | None:
        if job.resources.network_only:
            return self._here.idle(job)
        count = max(1, job.resources.devices)
        for seat in [one for one in self._seats if one.job is None]:
            if (seat.slots, seat.alone) == (count, job.alone) and self._is_there(seat):
                return seat
        if job.alone:
            self._end([one for one in self._seats if one.job is None])
        node = self._make_room(count)
        return None if node is None else self._seat(node, count, job)

    def _is_there(self, seat: _Seat) -> bool:
        """Ask an idle worker whether it is there; it is forgotten if not."""
        try:
            return not seat.used or bool(self._ray.get(seat.actor.is_there.remote(), timeout=_CALM_SECONDS))
        except self._ray.exceptions.RayError:
            self._seats.remove(seat)
            self._ray.kill(seat.actor)
            return False

    def _make_room(self, count: int) -> _Node | None:
        """Find a node with so many free slots, if need be by ending idle workers of another shape; None while there is none."""
        busy = [one for one in self._seats if one.job]
        left = self.size - sum(one.slots for one in busy)
        fits = [
            one
            for one in self._computing()
            if one.usable
            and min(left, self._slots(one) - sum(seat.slots for seat in busy if seat.node is one)) >= count
        ]
        if not fits:
            return None
        node = max(fits, key=self._free)  # the first of equals
        idle = sorted((one for one in self._seats if not one.job), key=lambda seat: seat.node is node)
        while self._free(node) < count or self.size - sum(one.slots for one in self._seats) < count:
            here = [one for one in idle if one.node is node]
            self._end([here.pop() if here and self._free(node) < count else idle[0]])
            idle = [one for one in idle if one in self._seats]
        return node if self._has(node, count) else None

    def _free(self, node: _Node) -> int:
        return self._slots(node) - sum(one.slots for one in self._seats if one.node is node)

    def _has(self, node: _Node, count: int) -> bool:
        """Say whether a node's GPUs are free: others may work on the cluster, too."""
        has = self._ray._private.state.available_resources_per_node().get(node.id, {})
        return not self._on_gpus or has.get("GPU", 0) >= count

    def _seat(self, node: _Node, count: int, job: JobSpec) -> _Seat:
        beside = sum(self._slots(one) for one in self._nodes.values() if one.address == node.address)
        share = ray_place.Share(
            self.suite,
            self.folder,
            self.mirror,
            size=count,
            threads=self.threads,
            threads_alone=thread_counts.of_folder(self.folder, 1, self._asked, node.processors)[1],
            sharing=beside if self._most is None else min(beside, self._most),
            on_gpus=self._on_gpus,
            working_folder=str(Path.cwd()),
        )
        gpus = job.resources.devices if self._on_gpus else 0
        threads = self.threads * count if job.resources.processors is None else job.resources.processors
        most = node.processors * count // node.gpus if gpus else node.processors
        place = self._ray.remote(ray_place.RayPlace).options(
            num_gpus=gpus,
            num_cpus=min(threads, most),
            memory=job.resources.memory_bytes if not gpus else None,
            scheduling_strategy=_on(node),
            max_restarts=0,
            max_concurrency=4,  # it can be told to stop while it listens
        )
        seat = _Seat(node, count, job.alone, place.remote(share))
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
        try:
            busy = {one.news: one for one in self._seats if one.job}
            if busy:
                ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=patience)
                found = [event for one in ready for event in self._hear(busy[one])]
                found += self._here.events(0.0)
            else:
                found = self._here.events(patience, wake)
            return [*found, *self._look_around()]
        except self._ray.exceptions.RayError as error:
            raise JobError(
                f"the Ray cluster is gone ({one_line(str(error).strip().splitlines()[0], 200)}); checkpoints are kept in "
                f"{self.folder}, the same command goes on"
            ) from error

    def _hear(self, seat: _Seat) -> Iterator[Event]:
        job = seat.job
        assert job is not None
        try:
            news = self._ray.get(seat.news)
        except self._ray.exceptions.RayError as error:
            why = "its node left the cluster" if "node has died" in str(error) else "it ended unasked"
            yield from self._lost(seat, f"the worker on node {seat.node.address} is gone: {why}")
            return
        seat.news = seat.actor.listen.remote()
        for kind, message in news:
            if kind != "progress":
                seat.job = None
                if seat.alone or kind == "died" or message["outcome"] == record.STOPPED:
                    self._end([seat])
                if kind == "died":
                    message = {"message": f"on node {seat.node.address} {message['message']}"}
            yield Event(job, cast(Literal["progress", "done", "died"], kind), message)

    def _lost(self, seat: _Seat, how: str) -> Iterator[Event]:
        """Forget an actor that is gone; say of its job that it died."""
        self._seats.remove(seat)
        self._ray.kill(seat.actor)
        if seat.job:
            yield Event(seat.job, "died", {"message": how})

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
        try:
            self._end(list(self._seats))
        finally:
            self._forget(list(self._checking))
            self._ray.shutdown()


def _on(node: _Node) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)


def _paths(suite: Experiment, mirror: Path | None) -> list[str]:
    """List what of a suite lies in files that the nodes must see."""
    found = [str(mirror)] if mirror else []
    if isinstance(suite, Suite):
        of_source = (suite.model, suite.data.preference, suite.data.instruction)
        found += [str(Path(one.path).expanduser()) for one in of_source if one.source == "local" and one.path]
    return found


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
    return RayPool(_connect(address), suite, folder, mirror and mirror.resolve(), workers, threads, tell)


def _connect(address: str | None) -> Any:
    where = address or os.environ.get("RAY_ADDRESS") or None
    if where and "://" in where:
        raise InputError(
            f"RAY_ADDRESS={where}: bench runs on a machine of the cluster, not through Ray's client; unset it there"
        )
    if where and where != "local" and where != "auto":
        _see_that_somebody_answers(where)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent home
    import ray

    try:
        # What workers say goes to Ray's logs: the records have it, and the screen shows the progress.
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"--engine ray: no cluster at {where or 'this machine'}: {one_line(lines[0], 300)}") from error
    return ray


def _see_that_somebody_answers(address: str) -> None:
    """Find out at once what Ray would find out after minutes, and over many lines."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--engine ray://{address}: nobody answers there ({one_line(str(error))}); it must be HOST:PORT of the head, as "
            "`ray start --head` prints it"
        ) from None
