"""A job on several devices: the ranks that torchrun starts inside a worker, what they say, and that none is left behind.

Each rank is connected with its worker by a socket. News of the job come in, the wish to stop goes out; a rank whose worker is
gone hears the end of it, and ends. A rank that is gone is heard of in the same way, and ends the attempt.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.errors import JobError, RankDied, one_line
from bench.records.spec import JobSpec
from bench.run.context import WorkerContext
from bench.suite.suite import Experiment

START_SECONDS = 600.0  # until every rank must have come: each imports torch, on a machine that may be busy
GONE_SECONDS = 10.0  # after one failed, until what became of the others is not waited for any longer
STOP, FAILED, DONE, PROGRESS, DAMAGE, RESUMED = "stop", "failed", "done", "progress", "damage", "resumed"


@dataclass(frozen=True)
class Task:
    """Say what a rank is to do, and for whom."""

    job: JobSpec
    experiment: Experiment
    folder: Path
    mirror: Path | None
    environment: dict[str, Any]
    threads: int
    on_gpus: bool


def run(job: JobSpec, context: WorkerContext) -> None:
    """Compute a job on as many ranks as it has devices; all of them write what one process would have written.

    Raises:
        RankDied: one is gone.
        Exception: whatever one of them failed with.
    """
    import torch

    count = job.resources.devices
    context.release()  # a rank needs the device that this worker's models are on
    threads = max(1, torch.get_num_threads() // count)
    environment = context.environment | {"threads": threads, "devices": count}
    on_gpus = context.device.startswith("cuda")
    task = Task(job, context.experiment, context.folder, context.mirror, environment, threads, on_gpus)
    with _started(count, threads) as (ranks, log):
        try:
            for one in ranks:
                one.send(task)
            _Following(ranks, context).to_the_end()
        except RankDied as error:
            raise RankDied(f"{error}{_last_words(log)}; its checkpoint, if any, is kept") from None


@contextmanager
def _started(count: int, threads: int) -> Iterator[tuple[list[Connection], Path]]:
    """Start the ranks; at the end none is left, whatever happened."""
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as folder:
        address, log = str(Path(folder) / "s"), Path(folder) / "log"
        command = [sys.executable, "-m", "bench.run.torchrun", "--standalone", "--nproc-per-node", str(count)]
        command += ["--max-restarts", "0", "--signals-to-handle", "SIGQUIT", "-m", "bench.run.rank", address]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        with socket.socket(socket.AF_UNIX) as server, log.open("wb") as written:
            server.bind(address)
            server.listen(count)
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                start_new_session=True,
            )
            ranks: list[Connection] = []
            try:
                _accept(server, process, count, ranks)
                yield ranks, log
            finally:
                for one in ranks:
                    one.close()  # which a rank at work hears, and ends
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
                process.kill()
                process.wait()


def _accept(server: socket.socket, process: Any, count: int, ranks: list[Connection]) -> None:
    """Wait for every rank to come; they stand in order of their number."""
    server.settimeout(0.2)
    came: dict[int, Connection] = {}
    until = time.monotonic() + START_SECONDS
    while len(came) < count:
        if process.poll() is not None or time.monotonic() > until:
            raise RankDied(f"{count - len(came)} of {count} ranks did not start")
        with suppress(TimeoutError):
            found, _ = server.accept()
            found.setblocking(True)
            one = Connection(found.detach())
            ranks.append(one)
            came[one.recv()] = one
    ranks[:] = [came[rank] for rank in sorted(came)]


class _Following:
    """Hear the ranks, and tell them to stop once the worker is told.

    A rank that fails, or is killed, makes the others fail too, as it does not answer them, and these may be heard first. So the
    rest is heard as well, and the reason is what failed earliest; where that may be a missing answer, a rank gone without a word.
    """

    def __init__(self, ranks: list[Connection], context: WorkerContext) -> None:
        self._context, self._count = context, len(ranks)
        self._at_work = dict(zip(ranks, range(len(ranks)), strict=True))
        self._failures: list[tuple[float, BaseException]] = []  # seconds of the machine's clock, and what then failed
        self._told = False

    def to_the_end(self) -> None:
        """Return once every rank is done.

        Raises:
            RankDied, Exception: see `run`.
        """
        until = float("inf")
        while self._at_work and time.monotonic() < until:
            if self._context.stopping() and not self._told:
                self._told = True
                for one in self._at_work:
                    with suppress(OSError):
                        one.send(STOP)
            for ready in connection.wait(list(self._at_work), 0.2):
                self._hear(ready)  # type: ignore[arg-type]
            if self._failures and until == float("inf"):
                until = time.monotonic() + GONE_SECONDS
        if self._failures:
            raise self._first_failure()

    def _first_failure(self) -> BaseException:
        return min(self._failures, key=lambda one: one[0])[1]

    def _hear(self, one: Connection) -> None:
        try:
            kind, value = one.recv()
        except (EOFError, OSError):
            if self._failures and not _may_miss_an_answer(error := self._first_failure()):
                raise error from None
            raise RankDied(f"rank {self._at_work[one]} of {self._count} ended before its work was done") from None
        if kind == DONE:
            del self._at_work[one]
        elif kind == FAILED:
            del self._at_work[one]
            self._failures.append(value)
        elif kind == PROGRESS:
            self._context.tell(value)
        elif kind == DAMAGE:
            self._context.note_damage(value)
        elif kind == RESUMED:
            self._context.resumed[:] = value


def _may_miss_an_answer(error: BaseException) -> bool:
    """Say whether an error may be that another rank is gone: gloo's are plain ones, NCCL's and the store's have names."""
    import torch.distributed

    return type(error) is RuntimeError or isinstance(error, torch.distributed.DistError)


def _last_words(log: Path) -> str:
    """Return how torchrun says that a rank ended, such as by a signal; "" where it says nothing."""
    with suppress(OSError):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if "exitcode" in line:
                return f" ({one_line(line, 100)})"
    return ""


def portable(error: BaseException) -> BaseException:
    """Return an error as it can be sent to another process, which makes it anew of its arguments; others go as their words."""
    try:
        if str(type(error)(*error.args)) == str(error):
            return error
    except Exception:
        pass
    return JobError(f"{type(error).__name__}: {error}")
