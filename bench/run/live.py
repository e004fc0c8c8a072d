"""What a run is doing now, in a file that another process can read: `bench status` shows it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.records import safe_files

FILE = ".progress.json"
_SECONDS = 2.0  # between two writes, at least
_SHARE = 0.005  # of the run's time that writing may take
A_PLACE = "a free worker"


@dataclass
class Now:
    """What a run is doing.

    Attributes:
        running: a job's id -> the last thing that it said, and since when it runs.
        waiting: a pending job's id -> what it waits for: a job, or in words.
        blocked: a job's id -> the failed one that it needed.
    """

    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    alive: bool = False
    where: str = ""


class Live:
    """Keep the file of a run at work up to date, at most every other second."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._running: dict[str, dict[str, Any]] = {}
        self._begun = self._changed = False
        self._next = 0.0
        self._process = _process(os.getpid())

    def begin(self) -> None:
        """Write from now on: the folder is there, and nobody else at work in it."""
        self._begun = self._changed = True

    def started(self, job_id: str) -> None:
        self._running[job_id] = {"since": _now()}
        self._changed = True

    def progress(self, job_id: str, message: Mapping[str, Any]) -> None:
        if job_id in self._running:
            self._running[job_id] |= message
            self._changed = True

    def ended(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._changed = True

    def due(self, now: float) -> float | None:
        """Return in how many seconds there is something to write; None: nothing has changed."""
        return max(0.0, self._next - now) if self._begun and self._changed else None

    def write(self, waiting: Mapping[str, str], blocked: Mapping[str, str], *, last: bool = False) -> None:
        """Write what is known; what cannot be written is not shown, and stops no run."""
        began = time.monotonic()
        value = {
            "schema": 1,
            **self._process,
            "time": _now(),
            "ended": last,
            "running": {} if last else self._running,
            "waiting": waiting,
            "blocked": blocked,
        }
        temporary = safe_files.temporary_name(self._path)
        with contextlib.suppress(OSError):
            try:
                with open(temporary, "x", encoding="utf-8", opener=safe_files.opener) as file:
                    json.dump(value, file)
                temporary.replace(self._path)  # whole for a reader; need not outlive the machine
            finally:
                temporary.unlink(missing_ok=True)
        ended = time.monotonic()
        # Of thousands of jobs the file is large: the rarer it is written, the less of the run's time it takes.
        self._changed, self._next = False, ended + max(_SECONDS, (ended - began) / _SHARE)


def read(folder: Path) -> Now:
    """Read what the last run of a folder said; nothing where there is none, or of another form."""
    path = folder / FILE
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        parts = {name: dict(value.get(name, {})) for name in ("running", "waiting", "blocked")}
        alive = bool(value) and not value["ended"] and _is_alive(value)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Now()
    elsewhere = value.get("host") != socket.gethostname() if value else False
    where = f"on {value['host']}, as of {value['time']}" if alive and elsewhere else ""
    return Now(**parts, alive=alive, where=where)


def _process(number: int) -> dict[str, Any]:
    """Say which process it is: numbers are given again, with another time of start."""
    import psutil

    return {"host": socket.gethostname(), "process": number, "process_started": psutil.Process(number).create_time()}


def _is_alive(value: Mapping[str, Any]) -> bool:
    """Say whether the process that wrote a file is there; of another machine it is not known, and believed."""
    import psutil

    if value["host"] != socket.gethostname():
        return True
    try:
        return bool(abs(psutil.Process(int(value["process"])).create_time() - value["process_started"]) < 1.0)
    except psutil.Error:
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
