"""A job that measures what it takes gets the machine for itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import Inputs, JobSpec
from bench.run import execute, local_pool


class Pipe:
    """A worker's end, in which a test puts what it says."""

    def send(self, job: JobSpec) -> None: ...

    def recv(self) -> Any:
        return "done", {"outcome": record.COMPLETE}

    def close(self) -> None: ...


class Process:
    def is_alive(self) -> bool:
        return True

    def join(self, timeout: float | None = None) -> None: ...

    def kill(self) -> None: ...


class Listener:
    """Keep what began and ended."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, job: JobSpec) -> None:
        self.events.append(f"+{job.id}")

    def progress(self, job: JobSpec, message: dict[str, Any]) -> None: ...

    def retried(self, job: JobSpec, status: dict[str, Any]) -> None: ...

    def ended(self, job: JobSpec, status: dict[str, Any]) -> None:
        self.events.append(f"-{job.id}")


def job(name: str, kind: str, *needs: str) -> JobSpec:
    """A job that needs others, which stand as points of a front."""
    return JobSpec(name, kind, None, {}, Inputs(front=needs), {})


@pytest.fixture
def execution(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> execute.Execution:
    """Two workers that do nothing, on a plan: a; b after a; c; cost."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    plan = Plan(tiny())
    for one in (job("a", "train"), job("b", "train", "a"), job("c", "train"), job("cost", "cost")):
        plan.add(one)
    pool = local_pool.of_this_machine(plan.suite, tmp_path, workers=2)
    made = execute.Execution(plan, tmp_path, Listener(), pool)
    made.pending, made.summary = set(plan.jobs), execute.Summary()
    made.started = []  # type: ignore[attr-defined]

    def spawn(config: Any, slots: tuple[int, ...], alone: bool) -> Any:
        made.started.append((config.workers, config.threads))  # type: ignore[attr-defined]
        return local_pool._Place(Process(), Pipe(), slots, alone)

    monkeypatch.setattr(pool, "_spawn", spawn)
    return made


def busy(execution: Any) -> list[str]:
    assert sorted(execution.running) == sorted(one.job.id for one in execution.pool._places if one.job)
    return sorted(execution.running)


def end(execution: Any, name: str) -> None:
    """Let a running job end well, then hand out what can be."""
    (one,) = [one for one in execution.pool._places if one.job and one.job.id == name]
    execution._hear(execution.pool._hear(one))
    execution._hand_out()


def test_nothing_runs_beside_it(execution: Any) -> None:
    """It waits while a or c or b runs, starts when all are done, and ends with its worker."""
    execution._hand_out()
    assert busy(execution) == ["a", "c"]
    end(execution, "c")
    assert busy(execution) == ["a"]  # a worker is idle, and the job still waits
    end(execution, "a")
    assert busy(execution) == ["b"]  # b can go, so the job waits on
    end(execution, "b")
    assert busy(execution) == ["cost"] and len(execution.pool._places) == 1
    end(execution, "cost")
    assert execution.pool._places == [] and not execution.pending
    assert execution.listener.events == ["+a", "+c", "-c", "-a", "+b", "-b", "+cost", "-cost"]


def test_nothing_is_started_beside_it(execution: Any) -> None:
    """Were it to run while other jobs are pending, these wait until it has ended, and then get usual workers."""
    execution.pending = {"cost"}
    execution._hand_out()
    execution.pending |= {"a", "c"}
    execution._hand_out()
    assert busy(execution) == ["cost"]
    end(execution, "cost")
    assert busy(execution) == ["a", "c"]


def test_it_has_all_of_the_machine(execution: Any) -> None:
    """Two workers share the cores; the one of the job that runs alone is one, with all of them."""
    cores = os.cpu_count() or 1
    execution.pending = {"a", "cost"}
    execution._hand_out()
    end(execution, "a")
    assert execution.started == [(2, max(1, cores // 2)), (1, cores)]
