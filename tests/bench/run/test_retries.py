"""What is tried again, how often and on which worker; and what a job's own fault or a user's wish is."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import DamagedInput, JobError, JudgeError, OutOfMemory, is_full, is_transient
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import Inputs, JobSpec
from bench.run import execute, handlers, local_pool


class Listener:
    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, job: JobSpec) -> None:
        self.events.append(f"+{job.id}")

    def progress(self, job: JobSpec, message: dict[str, Any]) -> None: ...

    def retried(self, job: JobSpec, status: dict[str, Any]) -> None:
        self.events.append(f"~{job.id}")

    def ended(self, job: JobSpec, status: dict[str, Any]) -> None:
        self.events.append(f"-{job.id} {status['outcome']}")


class Pipe:
    """A worker's end, in which a test puts what it says; with nothing in it the worker is dead."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.says: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def recv(self) -> Any:
        if not self.says:
            raise EOFError
        return "done", self.says.pop(0)

    def close(self) -> None: ...


class Process:
    exitcode = -9
    alive = True

    def is_alive(self) -> bool:
        return self.alive

    def join(self, timeout: float | None = None) -> None: ...

    def kill(self) -> None:
        self.alive = False


@pytest.fixture
def made(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One worker that does nothing, on a plan: a; b, which needs a."""
    plan = Plan(tiny())
    plan.add(JobSpec("a", "train", None, {}, Inputs(), {}))
    plan.add(JobSpec("b", "train", None, {}, Inputs(front=("a",)), {}))
    pool = local_pool.of_this_machine(plan.suite, tmp_path, workers=1)
    execution = execute.Execution(plan, tmp_path, Listener(), pool)
    execution.pending = {"a", "b"}
    started: list[Any] = []

    def spawn(config: Any, slots: tuple[int, ...], alone: bool) -> Any:
        started.append(config)
        return local_pool._Place(Process(), Pipe(), slots, alone)

    monkeypatch.setattr(pool, "_spawn", spawn)
    monkeypatch.setattr(execute, "RETRY_SECONDS", 0.0)
    execution.started = started  # type: ignore[attr-defined]
    return execution


def say(execution: Any, name: str, **status: Any) -> None:
    """Have the worker of a job say how it ended."""
    (one,) = [one for one in execution.pool._places if one.job and one.job.id == name]
    one.pipe.says.append({"outcome": record.FAILED, "error": "E", "message": "it broke", "finished": "now"} | status)
    execution._hear(execution.pool._hear(one))


def fail(execution: Any, **status: Any) -> None:
    """Have the job at hand end badly, then hand out what can be."""
    (name,) = execution.running
    say(execution, name, **status)
    execution._hand_out()


def die(execution: Any) -> None:
    """Have the only worker die."""
    (one,) = execution.pool._places
    execution._hear(execution.pool._hear(one))


def test_a_transient_fault_is_tried_again_twice_on_a_fresh_worker(made: Any) -> None:
    made._hand_out()
    for _ in range(3):
        fail(made, transient=True)
    assert made.listener.events == ["+a", "~a", "+a", "~a", "+a", "-a failed"]
    assert made.summary.failed == {"a": "it broke"} and made.summary.blocked == ["b"]
    assert made.summary.retried == {"a": 2}
    assert len(made.started) == 3  # each attempt had a process of its own


def test_a_fresh_worker_has_the_device_of_the_one_before(made: Any) -> None:
    """Of two workers the first one breaks: the next process in its place gets its device, not the other's."""
    made.pool.size, made.pool._gpus = 2, ["A", "B"]
    made.plan.add(JobSpec("c", "train", None, {}, Inputs(), {}))
    made.pending, made.order = {"a", "c"}, ["a", "c"]
    made._hand_out()
    say(made, "a", transient=True)
    made._hand_out()
    assert [config.visible_gpu for config in made.started] == ["A", "B", "A"]


def test_a_job_that_waits_for_its_next_attempt_makes_nobody_spin(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its time the run sleeps; after it, until a worker is idle."""
    slept: list[float | None] = []
    monkeypatch.setattr(local_pool.connection, "wait", lambda ready, seconds: slept.append(seconds) or [])
    made.signals = SimpleNamespace(fileno=lambda: 0, first=None)
    made._hand_out()
    made.pending.add("c")
    made._waiting = {"c": execute.time.monotonic() + 5.0}
    made._listen()
    made._waiting = {"c": execute.time.monotonic() - 5.0}
    made._listen()
    assert slept[0] == pytest.approx(5.0, abs=0.5) and slept[1] is None


def test_the_attempts_before_go_to_the_worker_that_puts_them_on_record(made: Any) -> None:
    made._hand_out()
    fail(made, transient=True)
    (one,) = made.pool._places
    assert one.pipe.sent[-1][1] == [{"error": "E", "message": "it broke", "finished": "now"}]


def test_its_own_fault_is_not_tried_again(made: Any) -> None:
    made._hand_out()
    fail(made)
    assert made.listener.events == ["+a", "-a failed"]
    assert len(made.started) == 1


def test_a_dead_worker_is_a_transient_fault_and_its_last_is_put_on_record(made: Any) -> None:
    made._hand_out()
    for _ in range(3):
        die(made)
        made._hand_out()
    status = record.read_json(made.folder / "jobs" / "a" / "status.json")
    assert status["error"] == "WorkerDied" and len(status["attempts"]) == 2
    assert "signal 9" in status["message"]


def test_what_dies_as_the_run_is_stopped_did_not_fail(made: Any) -> None:
    made._hand_out()
    made.signals.first = "SIGTERM"
    die(made)
    assert made.summary.failed == {} and not (made.folder / "jobs" / "a" / "status.json").exists()
    assert made._is_over()


def test_a_worker_that_was_told_alone_leaves_its_job_to_another(made: Any) -> None:
    made._hand_out()
    fail(made, outcome=record.STOPPED, error="Interrupted")
    assert made.listener.events == ["+a", "~a", "+a"]
    assert len(made.started) == 2  # the one that was told is going
    made.stopping = True  # now everybody is asked to stop
    say(made, "a", outcome=record.STOPPED, error="Interrupted", message="at step 3")
    assert made.listener.events[3:] == ["-a stopped"] and made.summary.failed == {}


def test_a_job_that_is_stopped_again_and_again_has_failed_and_blocks_what_needs_it(made: Any) -> None:
    """Nobody asked the run to stop: what needs the job must not begin without it."""
    made._hand_out()
    for _ in range(3):
        fail(made, outcome=record.STOPPED, error="Interrupted", message="stopped at step 3")
    assert made.summary.failed == {"a": "stopped at step 3"} and made.summary.blocked == ["b"]
    assert not made.pending and not made.running


def test_a_damaged_input_is_made_anew_before_the_job_that_reads_it(made: Any) -> None:
    made.pending, made.summary.skipped = {"b"}, ["a"]
    made._hand_out()
    fail(made, error="DamagedInput", damaged_input="a", message="a was found damaged: its scores")
    assert made.listener.events == ["+b", "~b", "+a"]
    assert made.summary.damaged == {"a": ["a was found damaged: its scores"]} and made.summary.skipped == []
    fail(made, outcome=record.COMPLETE)
    assert made.listener.events[3:] == ["-a complete", "+b"]


def test_a_full_disk_ends_the_run_and_is_nobodys_fault(made: Any) -> None:
    made._hand_out()
    say(made, "a", error="DiskFull", message="full")
    assert made._is_over() and made.summary.failed == {}


# ---- which faults are whose ------------------------------------------------------------------------------------------


class ConnectTimeout(Exception):
    """As httpx and requests name it, below classes of theirs."""


class Timeout(ConnectTimeout): ...


class Response:
    status_code = 503


class HfHubHTTPError(Exception):
    response = Response()


def raised_from(cause: Exception, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError("too long"), True),
        (Timeout("the hub"), True),
        (HfHubHTTPError("503"), True),
        (raised_from(Timeout("the hub"), JobError("cannot be loaded")), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (OutOfMemory("out of memory at step 3"), False),
        (raised_from(ConnectionResetError("reset"), JudgeError("the judge")), False),
        (JobError("the loss is not finite"), False),
        (FileNotFoundError("no such file"), False),
        (ValueError("timeout must be positive"), False),
    ],
)
def test_transient_faults_are_of_networks_servers_and_devices(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (raised_from(OSError(errno.ENOSPC, "full"), JobError("cannot be kept")), True),
        (
            RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed: No space left on device"),
            True,
        ),
        (OSError(errno.EACCES, "Permission denied"), False),
        (JobError("no"), False),
    ],
)
def test_a_full_disk_is_known_by_whoever_meets_it(error: Exception, expected: bool) -> None:
    assert is_full(error) is expected


def test_a_jobs_status_says_which_fault_it_was(tmp_path: Path) -> None:
    job = JobSpec("b", "train", None, {}, Inputs(), {})
    assert handlers._of_error(Timeout("slow\x1b[2J"), job, tmp_path) == {
        "outcome": "failed",
        "error": "Timeout",
        "transient": True,
        "message": "slow (traceback in b/log.txt)",
    }
    damaged = handlers._of_error(DamagedInput("a", "its scores"), job, tmp_path)
    assert damaged["damaged_input"] == "a" and "transient" not in damaged
    full = handlers._of_error(OSError(errno.ENOSPC, "full"), job, tmp_path)
    assert full["error"] == "DiskFull" and full["message"].startswith(f"{tmp_path}: the disk is full, ")
