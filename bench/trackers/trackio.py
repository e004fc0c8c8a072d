"""Trackio: a database in `TRACKIO_DIR`, no account; `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` sends it elsewhere."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.trackers import PROJECT, Run, Tracker


class Trackio(Tracker):
    """Log by a client of the run's own."""

    package = "trackio"

    def __init__(self, run: Run) -> None:
        self._run = self._begin(run, "never" if run.known_as is None else "allow")
        if run.known_as not in (None, self._run.id):  # it goes by names: that is another folder's run of this job
            self._run.finish()
            self._run = self._begin(run, "never")
        self.id = self._run.id

    def _begin(self, run: Run, resume: str) -> Any:
        import trackio

        # `init` ends the run that the context it is called in has, so each has a context.
        return contextvars.Context().run(
            trackio.init,
            project=os.environ.get("TRACKIO_PROJECT") or PROJECT,
            name=run.name,
            group=run.suite,
            config={"kind": run.kind, **run.config},
            resume=resume,
            embed=False,
            auto_log_cpu=False,  # several runs share this machine, and a node's figures are not its
            auto_log_gpu=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, complete: bool) -> None:
        self._run.finish()

    def artifact(self, folder: Path) -> None:
        self._run.log_artifact(folder, name=f"{self._run.group}-report", type="report")
