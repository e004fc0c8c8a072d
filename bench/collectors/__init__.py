"""The collectors: what does training cost the machine?

`collect` watches one training job: peak memory, GPU utilization, activity and memory, CPU utilization, energy. Only training time
counts: the loop calls `resume` before a step's clock starts and `pause` after it stops, so evaluation, logging and
checkpoints are left out. Inside the timed region works nothing but a thread that takes a sample every half second. What
was collected leaves as rows for usage.jsonl; `summarize` turns such rows into measurements.

To add a collector: a file beside this one and a line in `COLLECTORS`, or an entry point in the group `bench.collectors`
of another package.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from bench.errors import InputError, one_line
from bench.plugins import Contract
from bench.records import record
from bench.records.metrics import Metric
from bench.registry import Registry

INTERVAL = 0.5  # seconds of training between two samples
NO_SAMPLE = "no sample was taken: training was too short, or too often broken off for evaluations"

Combine = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class Watched:
    """Say what is watched.

    Attributes:
        device: torch's name of the training device, such as cpu or cuda:0.
        gpu_uuids: NVML's names of the GPUs, such as GPU-8f6e...; empty: the GPU behind `device`, if it is one.
    """

    device: str
    gpu_uuids: tuple[str, ...] = ()


class Unavailable(Exception):
    """Say why something cannot be measured here."""


class Collector(Protocol):
    """Measure one figure while a job trains. Calls never overlap; a collector leaves out those it does not need.

    Attributes:
        metric: what the figure is; its name is the collector's in the table.
        combine: how its values become the run's: `statistics.median`, `max` or `math.fsum`.
        looks_back: seconds before a sample that it tells of; none is taken in so much training after an evaluation, a checkpoint
            or another block of work, which it would tell of too.
    """

    metric: ClassVar[Metric]
    combine: ClassVar[Combine]
    looks_back: ClassVar[float] = 0.0
    over_devices: ClassVar[str] = "first"

    def __init__(self, watched: Watched) -> None:
        """Get ready.

        Raises:
            Unavailable: the figure cannot be measured here; the reason goes on record.
        """

    def resume(self) -> None:
        """Begin a stretch of training."""

    def pause(self) -> None:
        """End a stretch of training."""

    def sample(self, seconds: float) -> float | None:
        """Read what can be read at any time of training; `seconds` is the training time so far. Called by a thread."""
        return None

    def drain(self) -> float | None:
        """Return what added up, or peaked, in training since the last call. Called between two stretches."""
        return None


COLLECTORS: Registry[type[Collector]] = Registry(
    "collector",
    "bench.collectors",
    {
        "gpu_utilization_percent": "bench.collectors.gpu:GpuUtilization",
        "gpu_memory_used_bytes": "bench.collectors.gpu:GpuMemory",
        "gpu_sm_activity_percent": "bench.collectors.gpu_activity:SmActivity",
        "gpu_tensor_activity_percent": "bench.collectors.gpu_activity:TensorActivity",
        "gpu_memory_bandwidth_percent": "bench.collectors.gpu_activity:MemoryBandwidth",
        "cpu_utilization_percent": "bench.collectors.cpu:Cpu",
        "peak_memory_bytes": "bench.collectors.memory:Memory",
        "energy_joules": "bench.collectors.energy:Energy",
    },
    # What a collector raises is caught while it works: training goes on without it. `check` looks at its figure.
    Contract(Collector, parts=(), watched=False),
)


def check() -> None:
    """See that each collector can be loaded and measures one figure, by the name that it has in the table.

    Raises:
        InputError: one cannot be, or does not; says whose it is.
    """
    for name, kind in COLLECTORS.items():
        metric = getattr(kind, "metric", None)
        whose = COLLECTORS.whose(name)
        if not isinstance(metric, Metric):
            raise InputError(f"{whose} has no `metric` that says what it measures; give its class a Metric")
        if metric.name != name:
            raise InputError(
                f"{whose} calls its figure {metric.name!r}; the metric's name and the entry's must be the same"
            )
        if metric.kind not in ("cost", "count"):
            raise InputError(f"{whose} calls its figure a {metric.kind}; what training takes is a cost or a count")
        if not callable(getattr(kind, "combine", None)):
            raise InputError(f"{whose} has no `combine`; give its class statistics.median, max or math.fsum")


def collect(device: str, gpu_uuids: Sequence[str] = (), interval: float = INTERVAL) -> Collectors:
    """Watch a training job; to be used in a `with` statement, where it is paused until the first `resume`."""
    return Collectors(COLLECTORS.values(), Watched(device, tuple(gpu_uuids)), interval)


class Collectors:
    """Run collectors beside a training loop and keep their rows until they are drained.

    A row is {"seconds", "name", "value"} with the seconds of training so far in this process, or, for a figure that
    cannot be measured here, {"seconds", "name", "value": None, "reason"}.

    In a `with` statement a thread takes the samples; without one, whoever calls `sample_if_due` does.
    """

    def __init__(
        self,
        kinds: Iterable[type[Collector]],
        watched: Watched,
        interval: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._interval, self._clock = interval, clock
        self._collectors: list[Collector] = []
        self._rows: list[dict[str, Any]] = []
        for kind in kinds:
            try:
                self._collectors.append(kind(watched))
            except Unavailable as error:
                self._rows.append(
                    {"seconds": 0.0, "name": kind.metric.name, "value": None, "reason": one_line(str(error))}
                )
            except Exception as error:
                self._broke(kind.metric.name, 0.0, error)
        self._lock = threading.Lock()  # guards all that is here; held while a collector is called
        self._training, self._closing = threading.Event(), threading.Event()
        self._before, self._resumed = 0.0, 0.0
        self._sampled = 0.0  # seconds of training at the last sample
        self._drained = 0.0  # and when it was last broken off for something else
        self._thread = threading.Thread(target=self._watch, name="bench-collectors", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()
        with self._lock:
            if not self._sampled and self._before:
                self._sample()  # the run was shorter than the interval
        self._closing.set()
        self._training.set()  # wakes the thread
        self._thread.join()

    def resume(self) -> None:
        """Count from here on."""
        with self._lock:
            if not self._training.is_set():
                self._call(lambda one: one.resume())
                self._resumed = self._clock()
                self._training.set()

    def pause(self) -> None:
        """Count no longer."""
        with self._lock:
            if self._training.is_set():
                self._before = self._seconds()
                self._training.clear()
                self._call(lambda one: one.pause())

    def drain(self) -> list[dict[str, Any]]:
        """Return the rows since the last call, and forget them. To be called while paused."""
        with self._lock:
            self._call(lambda one: one.drain())
            rows, self._rows = self._rows, []
            self._drained = self._seconds()
        return rows

    def _seconds(self) -> float:
        """Return the seconds of training so far."""
        return self._before + (self._clock() - self._resumed if self._training.is_set() else 0.0)

    def _call(self, method: Callable[[Collector], float | None]) -> None:
        """Call a method of every collector and keep what it returns; training goes on without one that breaks."""
        seconds = round(self._seconds(), 6)
        for one in tuple(self._collectors):
            try:
                value = method(one)
                if value is not None and not math.isfinite(value):
                    raise ValueError(f"{value} is no figure")
            except Exception as error:
                self._collectors.remove(one)
                self._broke(one.metric.name, seconds, error)
            else:
                if value is not None:
                    self._rows.append({"seconds": seconds, "name": one.metric.name, "value": value})

    def _broke(self, name: str, seconds: float, error: Exception) -> None:
        """Put on record why there is no figure; to be called where the error was caught."""
        logging.getLogger("bench").warning("%s: the collector broke", name, exc_info=True)
        reason = f"the collector broke: {type(error).__name__}: {one_line(str(error))}"
        self._rows.append({"seconds": seconds, "name": name, "value": None, "reason": reason})

    def _sample(self) -> None:
        self._sampled = self._seconds()
        unbroken = self._sampled - self._drained
        self._call(lambda one: one.sample(self._sampled) if unbroken >= getattr(one, "looks_back", 0.0) else None)

    def sample_if_due(self) -> float:
        """Take a sample if another interval of training has gone by.

        Returns:
            The seconds after which the next one can be due at the earliest, as training may pause meanwhile.
        """
        with self._lock:
            due = self._sampled + self._interval - self._seconds()
            if due <= 0 and self._training.is_set():
                self._sample()
                due = self._interval
        return max(due, 0.001)

    def _watch(self) -> None:
        while self._training.wait() and not self._closing.is_set():
            self._closing.wait(self.sample_if_due())


def of_devices(every: Sequence[Sequence[dict[str, Any]]], device: str) -> list[dict[str, Any]]:
    """Put the rows together that processes saw of a job they compute together, each on a device of its own.

    A collector says by `over_devices` how its figures come together. What one of them could not measure is measured for none.

    Args:
        every: each process's rows, the main one's first.
        device: cpu or cuda.
    """
    if len(every) == 1:
        return list(every[0])
    made: list[dict[str, Any]] = []
    for name in dict.fromkeys(row["name"] for rows in every for row in rows):
        by_process = [[row for row in rows if row["name"] == name] for rows in every]
        how = _over_devices(COLLECTORS[name], device) if name in COLLECTORS else "first"
        if how == "first":
            made += by_process[0]
            continue
        missing = next((row for rows in by_process for row in rows if row["value"] is None), None)
        if missing is not None:
            made.append(missing)
            continue
        add = math.fsum if how == "sum" else statistics.fmean
        # Of as many samples as every process has: a slower one may have taken one less.
        made += [rows[0] | {"value": add(row["value"] for row in rows)} for rows in zip(*by_process, strict=False)]
    return made


def _over_devices(kind: type[Collector], device: str) -> str:
    how = getattr(kind, "over_devices", "first")
    if how == "gpu_sum":
        return "first" if device == "cpu" else "sum"
    return how


def summarize(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Turn the rows of usage.jsonl, of one job and of the phase it shares, into measurements.

    Utilization is the median over the samples (paper, Appendix D.4), memory in use too, peak memory the maximum, energy
    the sum. A figure that could not be measured in some part of the run is null with the reason, not that of the rest.
    """
    values: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for row in rows:
        if row["value"] is None:
            reasons.setdefault(row["name"], row["reason"])
        else:
            values.setdefault(row["name"], []).append(row["value"])
    measurements = {}
    for collector in COLLECTORS.values():
        name, unit = collector.metric.name, collector.metric.unit
        if name in reasons or name not in values:
            measurements[name] = record.not_measured(unit, reasons.get(name, NO_SAMPLE))
        else:
            spread = _quartiles(values[name]) if collector.combine is statistics.median else {}
            measurements[name] = record.measured(collector.combine(values[name]), unit, **spread)
    return measurements


def _quartiles(values: Sequence[float]) -> dict[str, list[float]]:
    """Say where the middle half of the samples lies, of which a median alone tells nothing; of fewer than four, nothing."""
    if len(values) < 4:
        return {}
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"quartiles": [lower, upper]}
