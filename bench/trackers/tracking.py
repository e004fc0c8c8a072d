"""The listener that tells the tracker's process which jobs begin and end. It never waits while the run goes on."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import one_line
from bench.records.spec import JobSpec
from bench.trackers import TRACKERS, Tracker, sender

LAST_SECONDS = 30.0  # for what is still to be sent when the run is over


class Tracking:
    """Track a run. Use as a context manager around it.

    Args:
        name: the tracker's.
        suite: the suite's name.
        folder: its results.
        tell: shows a warning; it is called once at most.
    """

    def __init__(self, name: str, suite: str, folder: Path, tell: Callable[[str], None]) -> None:
        self.name = name
        self._folder, self._tell_once, self._told = folder, tell, False
        self._temporary: list[Path] = []
        self._process: Any = None
        self._suite, self._tried = suite, False

    def __enter__(self) -> Tracking:
        return self

    def _start(self) -> None:
        """Start the process, once: with the first job, when no other run can be at work in the folder."""
        self._tried = True
        context = multiprocessing.get_context("spawn")
        try:
            self._events: Any = context.Queue()
            self._news, theirs = context.Pipe(duplex=False)
            config = (self._events, theirs, self.name, self._suite, self._folder)
            process = context.Process(target=sender.main, args=config, daemon=True)
            process.start()
        except (OSError, ImportError) as error:  # no memory, no room for semaphores
            self._warn(str(error))
        else:
            theirs.close()
            self._process = process

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        try:
            self._put("over")
            until = time.monotonic() + LAST_SECONDS
            while self._process.is_alive() and time.monotonic() < until:
                self._process.join(0.1)
                self._hear()
            if self._process.is_alive():
                self._warn(f"not all was sent within {LAST_SECONDS:.0f} s")
        finally:
            self._process.kill()
            self._events.cancel_join_thread()
            for folder in self._temporary:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def keeps_reports(self) -> bool:
        """Whether the tracker has a place for a report."""
        return TRACKERS[self.name].artifact is not Tracker.artifact

    def started(self, job: JobSpec) -> None:
        if not self._tried:
            self._start()
        self._put("begin", job.id)

    def progress(self, job: JobSpec, message: dict[str, Any]) -> None:
        self._hear()

    def retried(self, job: JobSpec, status: dict[str, Any]) -> None:
        self._hear()  # it is followed on

    def ended(self, job: JobSpec, status: dict[str, Any]) -> None:
        self._put("end", job.id, str(status["outcome"]))

    @contextmanager
    def sending(self) -> Iterator[Path]:
        """Have what is put into a folder kept as the report. Trouble in making it is one of the tracker's."""
        made = Path(tempfile.mkdtemp(prefix="bench-report-"))
        self._temporary.append(made)
        try:
            yield made
            self._put("report", made)
        except Exception as error:
            self._warn(f"no report to keep: {type(error).__name__}: {one_line(str(error), 300)}")

    def _put(self, *event: Any) -> None:
        if self._process is not None:
            self._events.put(event)
        self._hear()

    def _hear(self) -> None:
        """Pass the first trouble on."""
        if self._process is None:
            return
        try:
            while self._news.poll():
                self._warn(self._news.recv())
        except (EOFError, OSError):
            if self._process.exitcode:
                self._warn(f"its process ended with {self._process.exitcode}")

    def _warn(self, line: str) -> None:
        if not self._told:
            self._told = True
            self._tell_once(
                f"tracker {self.name}: {line}; the run goes on, and its records are whole ({self._folder / sender.LOG})"
            )
