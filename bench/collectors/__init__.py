"""The collectors: what does training cost the machine?

`collect` watches one training job: peak memory, GPU utilization and memory, CPU utilization, energy. Only training time
counts: the loop calls `resume` before a step's clock starts and `pause` after it stops, so evaluation, logging and
checkpoints are left out, and no collector works inside the timed region but for a sample by a thread every half second.
What was collected leaves as rows for usage.jsonl; `summarize` turns such rows into measurements. To add a collector: a
file beside this one and a line in `COLLECTORS`, or an entry point in the group `bench.collectors` of another package.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from bench import record

INTERVAL = 0.5  # seconds of training between two samples


@dataclass(frozen=True)
class Watched:
    """Say what is watched.

    Attributes:
        device: torch's name of the training device, such as cpu or cuda:0.
        gpu_uuids: NVML's names of the GPUs, such as GPU-8f6e...; empty: the GPU behind `device`.
    """

    device: str
    gpu_uuids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """Say how one figure's rows become its measurement: `statistics.median`, `max` or `math.fsum`, and its unit."""

    unit: str
    combine: Callable[[Sequence[float]], float]


class Collector(Protocol):
    """Measure something while a job trains. Calls never overlap; those a collector does not need it leaves out.

    Attributes:
        figures: what it measures, by metric name.
        missing: figures that cannot be measured here, each with the reason; may grow while it runs.
    """

    figures: ClassVar[Mapping[str, Figure]]
    missing: Mapping[str, str]

    def __init__(self, watched: Watched) -> None: ...

    def resume(self) -> None:
        """Begin a stretch of training."""

    def pause(self) -> None:
        """End a stretch of training."""

    def sample(self, seconds: float) -> Mapping[str, float]:
        """Read what can be read during training; `seconds` is the training time so far. Called by a thread."""
        return {}

    def drain(self) -> Mapping[str, float]:
        """Return what added up, or peaked, in training since the last call. Called between two stretches."""
        return {}


class _Table(Mapping[str, type[Collector]]):
    """Look collectors up by name; other packages' are loaded when asked for."""

    @cached_property
    def _own(self) -> dict[str, type[Collector]]:
        from bench.collectors.cpu import Cpu
        from bench.collectors.energy import Energy
        from bench.collectors.gpu import Gpu
        from bench.collectors.memory import Memory

        return {"memory": Memory, "gpu": Gpu, "cpu": Cpu, "energy": Energy}

    @cached_property
    def _foreign(self) -> dict[str, Any]:
        return {point.name: point for point in entry_points(group="bench.collectors")}

    def __getitem__(self, name: str) -> type[Collector]:
        if name in self._own:
            return self._own[name]
        collector: type[Collector] = self._foreign[name].load()
        return collector

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._foreign})

    def __len__(self) -> int:
        return len({**self._own, **self._foreign})


COLLECTORS: Mapping[str, type[Collector]] = _Table()


def collect(device: str, gpu_uuids: Sequence[str] = (), interval: float = INTERVAL) -> Collectors:
    """Watch a training job; to be used in a `with` statement, paused until the first `resume`."""
    watched = Watched(device, tuple(gpu_uuids))
    return Collectors([collector(watched) for collector in COLLECTORS.values()], interval)


class Collectors:
    """Run collectors beside a training loop and keep their rows until they are drained.

    A row is {"seconds", "name", "value"} with the seconds of training so far in this process, or, for a figure that
    cannot be measured here, {"seconds", "name", "value": None, "reason"}.
    """

    def __init__(self, collectors: Sequence[Collector], interval: float = INTERVAL) -> None:
        self._collectors, self._interval = collectors, interval
        self._lock = threading.Lock()  # held by whoever calls a collector
        self._training = threading.Event()
        self._closed = False
        self._before, self._resumed, self._sampled = 0.0, 0.0, 0.0
        self._rows: list[dict[str, Any]] = []
        self._told: set[str] = set()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._watch, name="bench-collectors", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            if not self._training.is_set():
                self._resume()
            self._sample()  # so that a run shorter than the interval has a sample too
            self._pause()
            self._closed = True
        self._training.set()
        self._thread.join()

    def resume(self) -> None:
        """Count from here on."""
        with self._lock:
            if not self._training.is_set():
                self._resume()

    def pause(self) -> None:
        """Count no longer; raise what went wrong in a sample."""
        with self._lock:
            if self._training.is_set():
                self._pause()
        if self._failure:
            raise self._failure

    def drain(self) -> list[dict[str, Any]]:
        """Return the rows since the last call, and forget them. Call it while paused."""
        with self._lock:
            for collector in self._collectors:
                self._keep(collector.drain())
                for name, reason in collector.missing.items():
                    if name not in self._told:
                        self._told.add(name)
                        self._rows.append({"seconds": self._seconds(), "name": name, "value": None, "reason": reason})
            rows, self._rows = self._rows, []
        return rows

    def _resume(self) -> None:
        for collector in self._collectors:
            collector.resume()
        self._resumed = time.perf_counter()
        self._training.set()

    def _pause(self) -> None:
        self._before = self._seconds()
        self._training.clear()
        for collector in self._collectors:
            collector.pause()

    def _seconds(self) -> float:
        """Return the seconds of training so far."""
        return self._before + (time.perf_counter() - self._resumed if self._training.is_set() else 0.0)

    def _keep(self, values: Mapping[str, float]) -> None:
        seconds = round(self._seconds(), 6)
        self._rows += [{"seconds": seconds, "name": name, "value": value} for name, value in values.items()]

    def _sample(self) -> None:
        self._sampled = self._seconds()
        for collector in self._collectors:
            self._keep(collector.sample(self._sampled))

    def _watch(self) -> None:
        """Take a sample whenever another interval of training has gone by."""
        while True:
            self._training.wait()
            with self._lock:
                if self._closed:
                    return
                due = self._sampled + self._interval - self._seconds()
                if due <= 0 and self._training.is_set():
                    try:
                        self._sample()
                    except Exception as error:  # raised again where the training loop sees it
                        self._failure = error
                        return
            # Steps may be shorter than the interval: look again when it can have gone by at the earliest.
            time.sleep(max(due, 0.001))


def summarize(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Turn the rows of usage.jsonl, of one job or of the phases it shares, into measurements.

    Utilization is the median over the samples (paper, Appendix D.4), memory the maximum, energy the sum. A figure that
    could not be measured during any part of the run is null with the reason, not a figure for the rest.
    """
    values: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for row in rows:
        if row["value"] is None:
            reasons.setdefault(row["name"], row["reason"])
        else:
            values.setdefault(row["name"], []).append(row["value"])
    figures = {name: figure for collector in COLLECTORS.values() for name, figure in collector.figures.items()}
    measurements = {}
    for name, figure in figures.items():
        if name in reasons:
            measurements[name] = record.not_measured(figure.unit, reasons[name])
        elif name not in values:
            measurements[name] = record.not_measured(figure.unit, "no sample was taken")
        else:
            measurements[name] = record.measured(figure.combine(values[name]), figure.unit)
    return measurements
