"""Walk the plan: hand ready jobs to worker processes, skip what is complete, outlive a job that dies."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import multiprocessing
import os
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

from bench.errors import InputError, Interrupted
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import JobSpec
from bench.run import worker


class Listener(Protocol):
    """Hear what happens; `progress.py` shows it."""

    def started(self, job: JobSpec) -> None: ...
    def progress(self, job: JobSpec, message: dict[str, Any]) -> None: ...
    def ended(self, job: JobSpec, status: dict[str, Any]) -> None: ...


@dataclass
class Summary:
    """Say what became of every job of a run."""

    skipped: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    not_selected: list[str] = field(default_factory=list)


def state_of(plan: Plan, folder: Path) -> dict[str, str]:
    """Return each job's state: complete, failed, stopped, resumable (has a checkpoint) or pending."""
    states = {}
    for job_id in plan.jobs:
        path = folder / "jobs" / job_id
        outcome = record.read_json(path / "status.json")["outcome"] if (path / "status.json").exists() else None
        if outcome is None:
            outcome = "resumable" if any((path / "checkpoints").glob("step-*.pt")) else "pending"
        states[job_id] = outcome
    return states


def select(plan: Plan, only: str | None) -> set[str]:
    """Return the jobs that match a glob, and all they need.

    Raises:
        InputError: nothing matches.
    """
    if only is None:
        return set(plan.jobs)
    chosen = {job_id for job_id in plan.jobs if fnmatch.fnmatch(job_id, only) or fnmatch.fnmatch(job_id, f"{only}-*")}
    if not chosen:
        raise InputError(f"--only {only}: matches no job; 'bench plan' lists them")
    return _with_needs(plan, chosen)


def _with_needs(plan: Plan, chosen: set[str]) -> set[str]:
    for job_id in reversed(plan.jobs):
        if job_id in chosen:
            chosen |= set(plan.jobs[job_id].needs)
    return chosen


def to_do(plan: Plan, folder: Path, selected: set[str]) -> set[str]:
    """Return the selected jobs that must run: not complete, or complete without the weights that a pending job loads."""
    states = state_of(plan, folder)
    pending = {job_id for job_id in selected if states[job_id] != record.COMPLETE}
    for job_id in reversed(plan.jobs):  # a job stands after those it needs
        if job_id in pending:
            pending |= {one for one in plan.jobs[job_id].needs_weights_of if not _has_weights(folder / "jobs" / one)}
    return pending


def _has_weights(path: Path) -> bool:
    return (path / "adapter").is_dir() or (path / "model").is_dir()


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
    """Run the pending jobs of a plan on local worker processes."""

    def __init__(
        self, plan: Plan, folder: Path, listener: Listener, mirror: Path | None = None, workers: int | None = None
    ) -> None:
        self.plan, self.folder, self.listener = plan, folder, listener
        gpus = _gpus()
        count = workers or default_workers()
        cores = os.cpu_count() or 1
        threads = max(1, cores // count)
        self.configs = [
            worker.WorkerConfig(plan.suite, folder, mirror, gpus[index % len(gpus)] if gpus else None, threads, count)
            for index in range(count)
        ]
        # Of a job that runs alone: the whole machine is its own, whatever the number of workers otherwise.
        self.config_alone = replace(self.configs[0], threads=cores, workers=1)
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()
        self.workers: list[_Worker] = []

    def run(self, selected: set[str]) -> Summary:
        """Run everything that is to do.

        Raises:
            InputError: another run holds this folder.
            Interrupted: the user stopped it; running jobs keep a checkpoint.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                return self._run(selected)
        except Timeout:
            raise InputError(
                f"{self.folder}: another bench run is at work in this folder; wait for it or use --results"
            ) from None

    def _run(self, selected: set[str]) -> Summary:
        write_suite(self.plan, self.folder)
        self.pending = to_do(self.plan, self.folder, selected)
        self.summary = Summary(
            skipped=[one for one in self.plan.jobs if one in selected and one not in self.pending],
            not_selected=[one for one in self.plan.jobs if one not in selected],
        )
        try:
            while self.pending or any(one.job for one in self.workers):
                self._hand_out()
                self._listen()
        except KeyboardInterrupt:
            self._wind_down()
            raise Interrupted(f"interrupted; checkpoints are kept in {self.folder}, the same command goes on") from None
        finally:
            self._end_workers()
        return self.summary

    def _hand_out(self) -> None:
        """Give every idle worker a job whose needs are met; drop the jobs whose needs failed."""
        running = {one.job.id for one in self.workers if one.job}
        if any(self.plan.jobs[one].alone for one in running):
            return
        lost = {*self.summary.failed, *self.summary.blocked}
        for job_id in [one for one in self.plan.jobs if one in self.pending]:
            job = self.plan.jobs[job_id]
            if lost & set(job.needs):
                self.pending.discard(job_id)
                self.summary.blocked.append(job_id)
                lost.add(job_id)
            elif (self.pending | running) & set(job.needs):
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
        one.pipe.send(job)
        self.listener.started(job)

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
        process = self.context.Process(target=worker.main, args=(theirs, self.stop, config), daemon=False)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _listen(self) -> None:
        """Wait for the next message of a busy worker, or its death."""
        busy = {one.pipe: one for one in self.workers if one.job}
        for ready in connection.wait(list(busy)) if busy else ():
            one = busy[ready]
            try:
                kind, message = one.pipe.recv()
            except (EOFError, ConnectionError):
                self._record_death(one)
                continue
            assert one.job is not None
            if kind == "progress":
                self.listener.progress(one.job, message)
            else:
                self._note(one, message)

    def _note(self, one: _Worker, status: dict[str, Any]) -> None:
        job, one.job = one.job, None
        assert job is not None
        if status["outcome"] == record.COMPLETE:
            self.summary.made.append(job.id)
        else:
            self.summary.failed[job.id] = status["message"]
        if job.alone:  # the next job gets a worker of its usual size
            self._end_workers()
        self.listener.ended(job, status)

    def _record_death(self, one: _Worker) -> None:
        """Put a dead worker's job on record as failed; a new worker takes its place when there is a job for it."""
        one.process.join()
        assert one.job is not None
        code = one.process.exitcode
        how = f"signal {-code}" + (" (often: out of memory)" if code == -9 else "") if code < 0 else f"exit code {code}"
        status = {
            "schema": record.SCHEMA,
            "outcome": record.FAILED,
            "error": "WorkerDied",
            "message": f"the worker process ended with {how}; its checkpoint, if any, is kept",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        record.write_json(self.folder / "jobs" / one.job.id / "status.json", status)
        self._note(one, status)

    def _wind_down(self) -> None:
        """Ask the workers to keep a checkpoint and stop; a second Ctrl-C does not wait.

        Only training has something to keep. The other jobs are short or, like a judge's replies, on disk already.
        """
        self.stop.set()
        for one in self.workers:
            if one.job and one.job.kind != "train":
                one.process.kill()
        try:
            while any(one.job for one in self.workers):
                self._listen_until_ended()
        except KeyboardInterrupt:
            for one in self.workers:
                one.process.kill()

    def _listen_until_ended(self) -> None:
        for one in self.workers:
            if one.job is None:
                continue
            try:
                if one.pipe.poll(0.2):
                    kind, message = one.pipe.recv()
                    if kind == "done":
                        self._note(one, message)
            except (EOFError, ConnectionError):
                one.job = None


def write_suite(plan: Plan, folder: Path) -> None:
    """Write suite.json: the resolved suite and the jobs of its plan."""
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
    }
    record.write_json(folder / "suite.json", value)
    _relabel(plan, folder)


def _relabel(plan: Plan, folder: Path) -> None:
    """Have jobs on record go by the suite's present labels, which are no part of what makes them."""
    for job in plan.jobs.values():
        path = folder / "jobs" / job.id / "spec.json"
        if job.labels is not None and path.exists():
            spec = record.read_json(path)
            labels = json.loads(json.dumps(job.labels.as_dict()))
            if spec.get("labels") != labels:
                record.write_json(path, spec | {"labels": labels})


def exit_code(summary: Summary) -> int:
    """Return 0 when all that was selected is complete, 1 when a job failed."""
    return 1 if summary.failed or summary.blocked else 0
