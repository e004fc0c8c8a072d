"""context_switches: how often the system took the processor away from training."""

from __future__ import annotations

import math
import resource
from typing import ClassVar

from bench.collectors import Collector, Combine, Watched
from bench.records.metrics import Metric


class ContextSwitches(Collector):
    """Count the process's involuntary context switches in training."""

    metric: ClassVar[Metric] = Metric(
        "context_switches",
        "Context switches",
        "switches",
        "lower",
        "cost",
        "times that the system took the processor away from training",
        low=0.0,
        tolerance=0.5,
        relative=True,
    )
    combine: ClassVar[Combine] = math.fsum

    def __init__(self, watched: Watched) -> None:
        self._count, self._before = 0, 0

    def resume(self) -> None:
        """Begin a stretch of training."""
        self._before = _switches()

    def pause(self) -> None:
        """End a stretch of training."""
        self._count += _switches() - self._before

    def drain(self) -> float | None:
        """Return the switches since the last call."""
        count, self._count = self._count, 0
        return float(count)


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
