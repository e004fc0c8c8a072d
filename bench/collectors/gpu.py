"""GPU utilization and memory in use, as NVML counts them."""

from __future__ import annotations

import statistics
from typing import Any, ClassVar

from bench.collectors import Collector, Combine, Unavailable, Watched, nvml
from bench.records.metrics import Metric


class _Sampled(Collector):
    """Sample the watched GPUs."""

    def __init__(self, watched: Watched) -> None:
        import pynvml

        self._gpus = nvml.gpus(watched)
        try:
            self._read(self._gpus)
        except pynvml.NVMLError as error:
            raise Unavailable(f"NVML: {error}") from None

    def sample(self, seconds: float) -> float | None:
        """Read the counter. What NVML refuses once is a sample less, no more."""
        import pynvml

        try:
            return self._read(self._gpus)
        except pynvml.NVMLError:
            return None

    def _read(self, gpus: list[Any]) -> float:
        raise AssertionError("a subclass reads")


class GpuUtilization(_Sampled):
    """Measure utilization, the mean over the watched GPUs.

    NVML's utilization is a duty cycle: the share of its last sampling period (1/6 s to 1 s) in which any kernel ran,
    however small. So in the first second after an evaluation it would tell of that too, and no sample is taken.
    """

    metric: ClassVar[Metric] = Metric(
        "gpu_utilization_percent",
        "GPU utilization",
        "%",
        better=None,
        kind="cost",
        meaning="median over the run",
        low=0.0,
        high=100.0,
    )
    combine: ClassVar[Combine] = statistics.median
    over_devices: ClassVar[str] = "mean"
    looks_back: ClassVar[float] = 1.0

    def _read(self, gpus: list[Any]) -> float:
        import pynvml

        return statistics.fmean(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu for gpu in gpus)


class GpuMemory(_Sampled):
    """Measure memory in use, the sum over the watched GPUs; other processes' and torch's cache included."""

    metric: ClassVar[Metric] = Metric(
        "gpu_memory_used_bytes",
        "GPU memory",
        "B",
        better="lower",
        kind="cost",
        meaning="median memory in use over the run",
        low=0.0,
        tolerance=0.05,
        relative=True,
    )
    combine: ClassVar[Combine] = statistics.median
    over_devices: ClassVar[str] = "sum"

    def _read(self, gpus: list[Any]) -> float:
        import pynvml

        return float(sum(pynvml.nvmlDeviceGetMemoryInfo(gpu).used for gpu in gpus))
