"""MLflow: a server, database or folder by `MLFLOW_TRACKING_URI`; a suite is an experiment."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.trackers import Run, Tracker

PARAMS_A_CALL, LONGEST_PARAM = 100, 500  # what every server takes


class MLflow(Tracker):
    """Log by a client, which names the run in each call."""

    package = "mlflow"

    def __init__(self, run: Run) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if run.known_as and self._goes_on(run.known_as):
            self.id = run.known_as
            return
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.suite)
        tags = {"suite": run.suite, "kind": run.kind}
        self.id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        self._describe(run.config)

    def _goes_on(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException:  # deleted, or of another server
            return False
        return True

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # another run made it just now
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _describe(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_allowed(name), str(value)[:LONGEST_PARAM]) for name, value in config.items()]
        for first in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(self.id, params=params[first : first + PARAMS_A_CALL])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.id, [Metric(_allowed(name), value, now, step) for name, value in values.items()])

    def finish(self, complete: bool) -> None:
        self._client.set_terminated(self.id, "FINISHED" if complete else "FAILED")

    def artifact(self, folder: Path) -> None:
        self._client.log_artifacts(self.id, str(folder), "report")


def _allowed(name: str) -> str:
    """Put `_` for what MLflow's names may not hold."""
    return re.sub(r"[^\w./ -]", "_", name)
