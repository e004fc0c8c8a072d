"""Trackers: tools that draw what jobs write down while they write it, such as Trackio or MLflow.

To add one: a file beside this one and a line in `TRACKERS`, or an entry point in the group `bench.trackers` of another
package. A process beside the run reads the jobs' files as they grow (`sender`), so that nothing a tracker does can touch it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import InputError, one_line
from bench.plugins import Contract
from bench.registry import Registry

PROJECT = "posttrain-bench"  # where a tracker sorts by projects and the user names none


@dataclass(frozen=True)
class Run:
    """Say what a tracker shows as a run: one job.

    Attributes:
        suite: the group that it belongs to.
        name: the job's id.
        kind: of job, such as train.
        config: the job's labels and settings by dotted name.
        folder: of the suite's results.
        known_as: the tracker's own id of the run that an earlier `bench run` began; None: a new one.
    """

    suite: str
    name: str
    kind: str
    config: Mapping[str, Any]
    folder: Path
    known_as: str | None = None


class Tracker:
    """Send one run's figures. Made once a job, and jobs run at once: nothing may be kept outside the object.

    Whatever it raises is one warning; what was not sent is sent again a minute later.

    Attributes:
        package: the module that must be importable; "": none.
        id: the tracker's own id of the run; "": it cannot be gone on with later. Where it is not `run.known_as`, the figures
            are sent from the first on.
    """

    package: ClassVar[str] = ""
    id: str = ""

    def __init__(self, run: Run) -> None:
        """Begin the run, or go on with the one that it is known as."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send figures of an optimizer step; those of one step may come in several calls."""

    def finish(self, complete: bool) -> None:
        """End the run for now; one that is not complete may be gone on with."""

    def artifact(self, folder: Path) -> None:
        """Keep a folder of files with the run. Not defined: the tracker has no such thing."""

    @classmethod
    def close(cls) -> None:
        """Wait for what the package does behind its runs; called once, when the last is ended."""

    @classmethod
    def problem(cls) -> str:
        """Say what is missing besides the package, such as a key, and what to do; "": nothing."""
        return ""


TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker",
    "bench.trackers",
    {
        "trackio": "bench.trackers.trackio:Trackio",
        "wandb": "bench.trackers.wandb:WandB",
        "mlflow": "bench.trackers.mlflow:MLflow",
        "tensorboard": "bench.trackers.tensorboard:TensorBoard",
    },
    # What one raises is caught where it is called, and the run goes on.
    Contract(Tracker, parts=("log", "finish"), watched=False),
)


def unknown(name: str) -> str:
    """Return the error message for a tracker that is not in the table."""
    return f"{TRACKERS.unknown(name)}; what each needs comes by pip install 'posttrain-bench[NAME]'"


def check(name: str) -> None:
    """Refuse a tracker that is not known, or not there.

    Raises:
        InputError: says what to install or to set.
    """
    if name not in TRACKERS:
        raise InputError(f"tracker: {unknown(name)}")
    package = TRACKERS[name].package
    if package and importlib.util.find_spec(package) is None:
        how = f"pip install 'posttrain-bench[{name}]'" if TRACKERS.ours(name) else f"pip install {package}"
        raise InputError(f"tracker: {name} needs the package {package}; {how}")
    try:
        problem = TRACKERS[name].problem()
    except Exception as error:  # of its package
        problem = f"cannot be used ({type(error).__name__}: {one_line(str(error), 300)})"
    if problem:
        raise InputError(f"tracker: {name}: {problem}")
