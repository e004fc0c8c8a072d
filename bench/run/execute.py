"""Walk the plan: hand ready jobs to worker processes, skip what is complete, outlive a job that dies."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

from bench.errors import DiskFull, InputError, Interrupted, is_full
from bench.plan.plan import Plan
from bench.records import record, safe_files, seal
from bench.records.spec import JobSpec
from bench.run import space, standing, thread_counts, worker
from bench.run.signals import Signals

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
    """

    skipped: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    damaged: dict[str, list[str]] = field(default_factory=dict)
    retried: dict[str, int] = field(default_factory=dict)
    not_selected: list[str] = field(default_factory=list)


def default_workers() -> int:
    """Return one worker a GPU, or one on a machine without."""
    return max(1, len(_gpus()))


def check_gpus() -> None:
    """Refuse a machine whose GPUs would be used by a torch that knows none.

    Raises:
        InputError: says what to install, or how to leave the GPUs alone.
    """
    gpus = _gpus()
    if gpus and not _torch_has_cuda():
        count = f"{len(gpus)} {'GPU is' if len(gpus) == 1 else 'GPUs are'}"
        raise InputError(
            f"{count} here, but the installed torch is a build for CPUs: install one that fits the GPU's driver "
            "(https://pytorch.org/get-started/locally), or set CUDA_VISIBLE_DEVICES= (empty) to train on the CPU"
        )


def _torch_has_cuda() -> bool:
    """Say whether torch was built for CUDA or ROCm, without importing it."""
    spec = importlib.util.find_spec("torch")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(folder) / "version.py" for folder in folders]
    texts = [file.read_text(encoding="utf-8") for file in files if file.exists()]
    return any(re.search(r"^(cuda|hip)\b[^=\n]*= *['\"]", text, flags=re.MULTILINE) for text in texts)


def _gpus() -> list[str]:
    """List the GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; found through NVML, without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    from bench.collectors import nvml

    return nvml.uuids()


@dataclass
class _Worker:
    process: Any
    pipe: Any
    job: JobSpec | None = None

    def end(self) -> None:
        """Let the process go home."""
        self.pipe.close()
        self.process.join(timeout=10)
        self.process.kill()


class Execution:
    """Run the pending jobs of a plan on local worker processes.

    Args:
        plan: what is to be done.
        folder: the suite's results.
        listener: hears what happens.
        mirror: an offline mirror of the hub, if there is one.
        workers: processes; one a GPU, or one, when left out.
        threads: of each job; those of the folder's first run when left out.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        listener: Listener,
        mirror: Path | None = None,
        workers: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.plan, self.folder, self.listener = plan, folder, listener
        gpus = _gpus()
        count = workers or default_workers()
        self.threads, alone = thread_counts.of_folder(folder, count, threads)
        self.configs = [
            worker.WorkerConfig(
                plan.suite, folder, mirror, gpus[index % len(gpus)] if gpus else None, self.threads, count
            )
            for index in range(count)
        ]
        # Of a job that runs alone: the whole machine is its own, whatever the number of workers otherwise.
        self.config_alone = replace(self.configs[0], threads=alone, workers=1)
        self.context = multiprocessing.get_context("spawn")
        self.stopping = False  # what is at work was told to stop
        self.workers: list[_Worker] = []
        self.signals = Signals()
        self.summary = Summary()
        self.pending: set[str] = set()
        self._attempts: dict[str, list[dict[str, Any]]] = {}
        self._waiting: dict[str, float] = {}  # job -> when it may be tried again
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
        from filelock import FileLock, Timeout

        safe_files.own_folder(self.folder, may_be_link=True)
        safe_files.own_folder(self.folder / "jobs")
        try:
            with FileLock(self.folder / ".lock", timeout=0), self.signals:
                return self._run(selected)
        except Timeout:
            raise InputError(
                f"{self.folder}: another bench run is at work in this folder; wait for it or use --results"
            ) from None

    def _run(self, selected: set[str]) -> Summary:
        began = _now()
        safe_files.sweep(standing.folders(self.folder), older=True)
        write_suite(self.plan, self.folder, self.threads)
        found = standing.look(self.plan, self.folder)
        self._selected = selected
        self.pending = standing.to_do(self.plan, self.folder, selected, found.states)
        damaged = {one: [what] for one, what in found.damaged.items() if one in self.pending}
        damaged |= self._without_damaged_checkpoints(
            one for one in self.plan.jobs if found.states[one] == record.COMPLETE
        )
        self.summary = Summary(
            skipped=[one for one in self.plan.jobs if one in selected and one not in self.pending],
            not_selected=[one for one in self.plan.jobs if one not in selected],
            damaged=damaged,
        )
        code = Interrupted.exit_code
        try:
            while not self._is_over():
                self._hand_out()
                self._listen()
            if self._asked_to_stop():
                self._wind_down()
            self._raise_if_stopped()
            code = exit_code(self.summary)
        except KeyboardInterrupt:
            self._wind_down()
            raise Interrupted(self._interrupted()) from None
        except DiskFull:
            code = DiskFull.exit_code
            raise
        finally:
            self._end_workers()
            self._keep_record(began, code)
        return self.summary

    def _without_damaged_checkpoints(self, complete: Iterable[str]) -> dict[str, list[str]]:
        """Delete checkpoints that complete jobs keep for others and that are not whole: the others then train those steps."""
        deleted = {}
        for job_id in complete:
            found = seal.damaged_checkpoints(self.folder / "jobs" / job_id)
            for path in found:
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
            if found:
                deleted[job_id] = [f"checkpoint {what}; deleted" for what in found.values()]
        return deleted

    def _is_over(self) -> bool:
        return self._asked_to_stop() or not (self.pending or any(one.job for one in self.workers))

    def _asked_to_stop(self) -> bool:
        return self.signals.first is not None or self._no_room is not None

    def _stops(self) -> bool:
        return self.stopping or self._asked_to_stop()

    def _raise_if_stopped(self) -> None:
        if self._no_room is not None:
            left = [one for one in self._selected if one not in self.summary.made and one not in self.summary.skipped]
            raise space.full(self.folder, space.needed(self.plan, self.folder, left, len(self.configs))[0])
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
            "workers": len(self.configs),
            "threads": self.threads,
            **vars(self.summary),
        }
        with contextlib.suppress(OSError):
            record.write_json(self.folder / LAST_RUN, value)

    def _hand_out(self) -> None:
        """Give every idle worker a job whose needs are met; drop the jobs whose needs failed."""
        running = {one.job.id for one in self.workers if one.job}
        if any(self.plan.jobs[one].alone for one in running):
            return
        lost = {*self.summary.failed, *self.summary.blocked}
        now = time.monotonic()
        for job_id in [one for one in self.plan.jobs if one in self.pending]:
            job = self.plan.jobs[job_id]
            if lost & set(job.needs):
                self.pending.discard(job_id)
                self.summary.blocked.append(job_id)
                lost.add(job_id)
            elif (self.pending | running) & set(job.needs) or self._waiting.get(job_id, now) > now:
                continue
            elif job.alone:
                if not running:  # else it waits, while others may go before it
                    self._end_workers()
                    self.workers.append(self._start(self.config_alone))
                    self._give(self.workers[-1], job)
                    return
            else:
                idle = self._idle_worker()
                if idle is None:
                    return
                running.add(job_id)
                self._give(idle, job)

    def _give(self, one: _Worker, job: JobSpec) -> None:
        self.pending.discard(job.id)
        one.job = job
        self.listener.started(job)
        try:
            one.pipe.send((job, self._attempts.get(job.id, [])))
        except OSError:  # it ended just now
            self._record_death(one)

    def _end_workers(self) -> None:
        for one in self.workers:
            one.end()
        self.workers = []

    def _idle_worker(self) -> _Worker | None:
        for place, one in enumerate(self.workers):
            if one.job is None:
                if not one.process.is_alive():
                    self.workers[place] = self._start(self.configs[place])
                return self.workers[place]
        if len(self.workers) == len(self.configs):
            return None
        self.workers.append(self._start(self.configs[len(self.workers)]))
        return self.workers[-1]

    def _start(self, config: worker.WorkerConfig) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=worker.main, args=(theirs, config), daemon=False)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _listen(self) -> None:
        """Wait for the next message of a busy worker, its death, a signal, or the time to try a job again."""
        busy = {one.pipe: one for one in self.workers if one.job}
        now = time.monotonic()
        times = [when - now for one, when in self._waiting.items() if one in self.pending and when > now]
        wait = min(times, default=None)
        if not busy and wait is None:
            return
        for ready in connection.wait([*busy, self.signals.fileno()], wait):
            if ready in busy:
                self._hear(busy[ready])

    def _hear(self, one: _Worker) -> None:
        try:
            kind, message = one.pipe.recv()
        except (EOFError, OSError):
            self._record_death(one)
            return
        if one.job is None:
            return
        if kind == "progress":
            self.listener.progress(one.job, message)
        else:
            self._note(one, message)

    def _note(self, one: _Worker, status: dict[str, Any]) -> None:
        """Count what became of a job, or have it tried again."""
        job = one.job
        assert job is not None
        if status.get("error") == DiskFull.__name__:
            self._no_room = str(status["message"])
        one.job = None
        for what in status.get("healed", ()):
            self.summary.damaged.setdefault(job.id, []).append(what)
        if self._again(job, status):
            if status.get("transient") or status["outcome"] == record.STOPPED:
                one.end()  # broken by what broke the job, or told to go: a fresh process takes its place
            self.listener.retried(job, status)
            return
        if status["outcome"] == record.COMPLETE:
            self.summary.made.append(job.id)
        elif self._no_room is None and not (status["outcome"] == record.STOPPED and self._stops()):
            self.summary.failed[job.id] = status["message"]
        if job.alone:  # the next job gets a worker of its usual size
            self._end_workers()
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
            self.summary.damaged.setdefault(damaged, []).append(str(status["message"]))
            for kept in (self.summary.made, self.summary.skipped):
                if damaged in kept:
                    kept.remove(damaged)
        elif status.get("error") not in (WORKER_DIED, Interrupted.__name__):
            self._waiting[job.id] = time.monotonic() + RETRY_SECONDS * 4 ** (len(attempts) - 1)
        return True

    def _record_death(self, one: _Worker) -> None:
        """Say of a job that its worker died; where it is not tried again, that is put on record."""
        one.process.join()
        assert one.job is not None
        if self._stops():  # by what stops the run, or by us
            one.job = None
            return
        code = one.process.exitcode
        how = f"signal {-code}" + (" (often: out of memory)" if code == -9 else "") if code < 0 else f"exit code {code}"
        job = one.job
        status: dict[str, Any] = {
            "schema": record.SCHEMA,
            "outcome": record.FAILED,
            "error": WORKER_DIED,
            "message": f"the worker process ended with {how}; its checkpoint, if any, is kept",
            "transient": True,
            "finished": _now(),
        }
        self._note(one, status)
        if job.id in self.summary.failed:
            status["attempts"] = self._attempts.get(job.id, [])
            try:
                record.write_json(self.folder / "jobs" / job.id / "status.json", status)
            except OSError as error:
                if not is_full(error):
                    raise
                self._no_room = str(error)

    def _wind_down(self) -> None:
        """Ask the workers to keep a checkpoint and stop; a second Ctrl-C does not wait.

        Only training has something to keep. The other jobs are short or, like a judge's replies, on disk already.
        """
        self.stopping = True
        for one in self.workers:
            if one.job and one.job.kind == "train":
                one.process.terminate()  # it takes that as `signals.Told` does
            elif one.job:
                one.process.kill()
                self._elsewhere += self._goes_on(one.job)
        try:
            while any(one.job for one in self.workers) and not self.signals.hurried:
                busy = {one.pipe: one for one in self.workers if one.job}
                for ready in connection.wait(list(busy), 0.2):
                    self._hear(busy[ready])
        except KeyboardInterrupt:
            pass
        for one in self.workers:
            if one.job:
                one.process.kill()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_suite(plan: Plan, folder: Path, threads: int | None = None) -> None:
    """Write suite.json: the resolved suite, the jobs of its plan, and the threads that each is computed with."""
    from bench import __version__
    from bench.run import environment, shipped

    produced = {
        "version": __version__,
        "commit": environment.commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    value = {
        "schema": record.SCHEMA,
        "name": plan.suite.name,
        "smoke": plan.suite.smoke,
        "suite": plan.suite.model_dump(mode="json"),
        "changes_of_shipped": shipped.changes(plan.suite),
        "jobs": list(plan.jobs),
        "produced": produced,
        **({"threads": threads} if threads else {}),
    }
    record.write_json(folder / "suite.json", value)
    _relabel(plan, folder)


def _relabel(plan: Plan, folder: Path) -> None:
    """Have jobs on record go by the suite's present labels, which are no part of what makes them."""
    for job in plan.jobs.values():
        path = folder / "jobs" / job.id / "spec.json"
        if job.labels is not None and path.exists():
            try:
                spec = record.read_json(path)
            except InputError:  # found damaged in a moment, and made again
                continue
            labels = json.loads(json.dumps(job.labels.as_dict()))
            if spec.get("labels") != labels:
                record.write_json(path, spec | {"labels": labels})


def exit_code(summary: Summary) -> int:
    """Return 0 when all that was selected is complete, 1 when a job failed."""
    return 1 if summary.failed or summary.blocked else 0
