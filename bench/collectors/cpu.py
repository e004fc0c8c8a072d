"""CPU utilization of the training process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import ClassVar

from bench.collectors import Collector, Combine, Watched
from bench.records.metrics import Metric


class Cpu(Collector):
    """Measure how many cores the process keeps busy: 100 = one core, all threads and the kernel's work for them.

    A sample covers the training since the last one and nothing else. It reads the process's own CPU clock, as steps may
    be shorter than the clock ticks (10 ms) in which /proc, and so psutil, counts.
    """

    metric: ClassVar[Metric] = Metric(
        "cpu_utilization_percent",
        "CPU utilization",
        "%",
        better=None,
        kind="cost",
        meaning="median of the process; 100 % = one core",
        low=0.0,
    )
    combine: ClassVar[Combine] = statistics.median
    over_devices: ClassVar[str] = "sum"

    def __init__(self, watched: Watched, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self._busy, self._resumed = 0.0, 0.0
        self._training = False
        self._last = (0.0, 0.0)  # seconds busy and seconds of training at the last sample

    def resume(self) -> None:
        """Begin a stretch of training."""
        self._training, self._resumed = True, self._clock()

    def pause(self) -> None:
        """End a stretch of training."""
        self._busy, self._training = self._busy_seconds(), False

    def sample(self, seconds: float) -> float | None:
        """Read the utilization since the last sample."""
        busy = self._busy_seconds()
        (busy_before, seconds_before), self._last = self._last, (busy, seconds)
        if seconds <= seconds_before:
            return None
        return 100 * (busy - busy_before) / (seconds - seconds_before)

    def _busy_seconds(self) -> float:
        return self._busy + (self._clock() - self._resumed if self._training else 0.0)
