"""Several listeners to one run."""

from __future__ import annotations

from typing import Any

from bench.records.spec import JobSpec
from bench.run.execute import Listener


class Listeners:
    """Tell each what happens, in turn."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def started(self, job: JobSpec) -> None:
        for one in self._listeners:
            one.started(job)

    def progress(self, job: JobSpec, message: dict[str, Any]) -> None:
        for one in self._listeners:
            one.progress(job, message)

    def retried(self, job: JobSpec, status: dict[str, Any]) -> None:
        for one in self._listeners:
            one.retried(job, status)

    def ended(self, job: JobSpec, status: dict[str, Any]) -> None:
        for one in self._listeners:
            one.ended(job, status)
