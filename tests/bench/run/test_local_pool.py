"""Which process a job gets: one with as many devices as it needs, all of the machine, or the one that only waits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import NETWORK_ONLY, Inputs, JobSpec, Resources
from bench.run import execute, local_pool
from bench.run.pool import check_room


class Pipe:
    """A worker's end, of a real pipe, so that news can be waited for."""

    def __init__(self) -> None:
        self._ours, self._theirs = local_pool.multiprocessing.Pipe()
        self.fileno, self.recv, self.close = self._ours.fileno, self._ours.recv, self._ours.close

    def send(self, message: Any) -> None: ...

    def say(self, kind: str, message: dict[str, Any]) -> None:
        self._theirs.send((kind, message))


class Process:
    exitcode = -15

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def join(self, timeout: float | None = None) -> None: ...

    def kill(self) -> None:
        self.heard.append("kill")

    def terminate(self) -> None:
        self.heard.append("terminate")


@pytest.fixture
def pool(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four GPUs, and a worker on each, that do nothing."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "A,B,C,D")
    made = local_pool.of_this_machine(tiny(), tmp_path)
    made.started = []  # type: ignore[attr-defined]

    def spawn(config: Any, slots: tuple[int, ...], alone: bool) -> Any:
        made.started.append(config)  # type: ignore[attr-defined]
        return local_pool._Place(Process(), Pipe(), slots, alone)

    monkeypatch.setattr(made, "_spawn", spawn)
    return made


def job(name: str, devices: int = 1, kind: str = "train", resources: Resources | None = None) -> JobSpec:
    return JobSpec(name, kind, None, {}, Inputs(), {}, resources=resources or Resources(devices))


ASKING = job("asking", kind="judge", resources=NETWORK_ONLY)


def give(pool: Any, one: JobSpec) -> Any:
    place = pool.idle(one)
    assert place is not None
    pool.give(place, one, [])
    return place


def end(pool: Any, place: Any, **status: Any) -> None:
    place.pipe.say("done", {"outcome": record.COMPLETE} | status)
    (event,) = pool.events(None)
    assert event.kind == "done"


def test_what_only_asks_a_network_holds_no_device_and_waits_for_none(pool: Any) -> None:
    """With every device taken it still starts; a second one waits for the first, as they would pay for the same replies."""
    for name in "abcd":
        give(pool, job(name))
    assert pool.idle(job("e")) is None
    place = give(pool, ASKING)
    assert pool.started[-1].visible_gpu is None and pool.started[-1].threads == 1
    assert pool.idle(ASKING) is None
    end(pool, place)
    assert pool.idle(ASKING) is place


def test_a_job_of_several_devices_gets_them_from_those_at_rest(pool: Any) -> None:
    """Two of four are at rest, with models of their own: they end, and one process has both; then again one each."""
    busy = [give(pool, job(name)) for name in "ab"]
    resting = [give(pool, job(name)) for name in "cd"]
    for one in resting:
        end(pool, one)
    assert pool.idle(job("large", 3)) is None and len(pool._places) == 4  # for nothing nobody is ended
    large = give(pool, job("large", 2))
    assert pool.started[-1].visible_gpu == "C,D" and pool.started[-1].threads == 4
    assert [one.process.heard for one in (*busy, *resting)] == [[], [], ["kill"], ["kill"]]
    assert pool.idle(job("e")) is None
    end(pool, large)
    give(pool, job("e"))
    assert [config.visible_gpu for config in pool.started] == ["A", "B", "C", "D", "C,D", "C"]


def test_a_worker_that_died_at_rest_is_replaced(pool: Any) -> None:
    place = give(pool, job("a"))
    end(pool, place)
    place.process.alive = False
    assert give(pool, job("b")) is not place
    assert [config.visible_gpu for config in pool.started] == ["A", "A"]


def test_one_that_dies_as_it_is_given_a_job_is_told_of(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(message: Any) -> None:
        raise BrokenPipeError

    place = pool.idle(job("a"))
    monkeypatch.setattr(place.pipe, "send", broken)
    pool.give(place, job("a"), [])
    (event,) = pool.events(None)
    assert (event.kind, event.message) == ("died", {"message": "the worker process ended with signal 15"})
    assert pool._places == []


def test_a_wait_ends_at_its_time_or_by_whoever_wakes_it(pool: Any) -> None:
    give(pool, job("a"))
    read, write = os.pipe()
    assert pool.events(0.0, read) == []
    os.write(write, b"!")
    assert pool.events(None, read) == []  # were it not woken, it would wait for good
    os.close(read)
    os.close(write)


def test_stopping_asks_what_trains_and_ends_what_has_nothing_to_keep(pool: Any) -> None:
    training, asking, resting = give(pool, job("a")), give(pool, ASKING), pool.idle(job("b"))
    pool.stop()
    assert [one.process.heard for one in (training, asking, resting)] == [["terminate"], ["kill"], []]


def test_a_job_of_more_devices_than_there_are_is_refused(pool: Any) -> None:
    check_room(pool, [job("a", 4), ASKING])
    with pytest.raises(InputError, match=r"^b computes on 5 devices at once, and a job can have 4 here: give more --w"):
        check_room(pool, [job("a", 4), job("b", 5)])


class Listener:
    def __init__(self) -> None:
        self.began: list[str] = []

    def started(self, job: JobSpec) -> None:
        self.began.append(job.id)

    def progress(self, job: JobSpec, message: dict[str, Any]) -> None: ...

    def retried(self, job: JobSpec, status: dict[str, Any]) -> None: ...

    def ended(self, job: JobSpec, status: dict[str, Any]) -> None: ...


def test_smaller_jobs_do_not_keep_a_large_one_waiting_for_good(pool: Any, tiny: Any, tmp_path: Path) -> None:
    """`large` is next and needs all four; while it waits nothing else takes a device, but asking a network goes on."""
    plan, listener = Plan(tiny()), Listener()
    for one in (job("a"), job("large", 4), job("b"), ASKING):
        plan.add(one)
    execution = execute.Execution(plan, tmp_path, listener, pool)
    execution.pending = {"a"}
    execution._hand_out()
    execution.pending = {"large", "b", "asking"}
    execution._hand_out()
    assert listener.began == ["a", "asking"]
    (place,) = [one for one in pool._places if one.job.id == "a"]
    place.pipe.say("done", {"outcome": record.COMPLETE})
    execution._hear(pool.events(None))
    execution._hand_out()
    assert listener.began == ["a", "asking", "large"]
