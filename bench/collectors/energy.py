"""Energy drawn during training: by the GPU as NVML counts it, by the CPU as RAPL does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from bench.collectors import Collector, Combine, Unavailable, Watched, nvml
from bench.records.metrics import Metric

POWERCAP = Path("/sys/class/powercap")

Counters = Callable[[], list[float]]


class Energy(Collector):
    """Add up the joules between the start and the end of every stretch of training.

    Both counters belong to the whole device: to the GPU's board, or to the CPU's packages with all that runs on them.
    """

    metric: ClassVar[Metric] = Metric(
        "energy_joules",
        "Energy",
        "J",
        better="lower",
        kind="cost",
        meaning="drawn by the device during training",
        low=0.0,
        tolerance=0.05,
        relative=True,
        choose="energy",
    )
    combine: ClassVar[Combine] = math.fsum
    over_devices: ClassVar[str] = "gpu_sum"  # a CPU's counter is the whole machine's

    def __init__(self, watched: Watched) -> None:
        self._read, self._wraps = _rapl() if watched.device == "cpu" and not watched.gpu_uuids else _nvml(watched)
        self._before: list[float] = []
        self._joules: float | None = None

    def resume(self) -> None:
        """Begin a stretch of training."""
        self._before = self._read()

    def pause(self) -> None:
        """End a stretch of training."""
        differences = (
            now - before if now >= before else now - before + wrap
            for before, now, wrap in zip(self._before, self._read(), self._wraps, strict=True)
        )
        self._joules = math.fsum((self._joules or 0.0, *differences))

    def drain(self) -> float | None:
        """Return the joules since the last call."""
        joules, self._joules = self._joules, None
        return joules


def _nvml(watched: Watched) -> tuple[Counters, list[float]]:
    """Return a reader of the GPUs' counters, in joules since the driver was loaded; they do not wrap."""
    import pynvml

    gpus = nvml.gpus(watched)

    def read() -> list[float]:
        return [pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3 for gpu in gpus]  # from mJ

    try:
        read()
    except pynvml.NVMLError as error:
        raise Unavailable(f"NVML: {error}") from None
    return read, [math.inf] * len(gpus)


def _rapl() -> tuple[Counters, list[float]]:
    """Return a reader of the CPU packages' counters in joules, and where each of them starts again from 0."""
    packages = sorted(POWERCAP.glob("intel-rapl:[0-9]"))  # AMD's too; a package's parts are intel-rapl:0:0 and so on
    if not packages:
        raise Unavailable("this machine does not show the CPU's energy counter (RAPL)")

    def read(name: str = "energy_uj") -> list[float]:
        return [int((package / name).read_text()) / 1e6 for package in packages]

    try:
        read()
        return read, read("max_energy_range_uj")
    except OSError as error:
        raise Unavailable(f"the CPU's energy counter (RAPL) cannot be read: {error.strerror}") from None
