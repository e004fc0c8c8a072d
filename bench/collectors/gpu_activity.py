"""How busy a GPU's parts are, from the hardware's own counters (NVML's GPM): multiprocessors, tensor cores, memory."""

from __future__ import annotations

import math
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from bench.collectors import Collector, Combine, Unavailable, Watched, nvml
from bench.records.metrics import Metric

# NVML asks for so many seconds between two looks.
SHORTEST = 0.1


def _metric(name: str, title: str, meaning: str) -> Metric:
    return Metric(name, title, "%", better=None, kind="cost", meaning=meaning, low=0.0, high=100.0)


class _Activity(Collector):
    """Take the mean over the watched GPUs of what a counter says of the time between two looks at it.

    Both looks are in training, and no evaluation, checkpoint or other block of work lies between them; what a loop does between
    two steps does. Whether the counters can be read at all is tried when the collector is made: not every card has them, and
    some machines keep them from users.
    """

    counter: ClassVar[str]
    combine: ClassVar[Combine] = statistics.median
    over_devices: ClassVar[str] = "mean"

    def __init__(
        self,
        watched: Watched,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        import pynvml

        gpus = nvml.gpus(watched)
        self._clock, self._since = clock, math.nan
        try:
            if not all(pynvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice for gpu in gpus):
                raise Unavailable("NVML: this GPU has no such counters (GPM)")
            self._counters = [_Counter(gpu, getattr(pynvml, self.counter)) for gpu in gpus]
            self.resume()
            wait(SHORTEST)
            self._read()
        except pynvml.NVMLError as error:
            raise Unavailable(f"NVML's counters (GPM): {error}") from None
        self.drain()

    def resume(self) -> None:
        """Look for the first time since an evaluation."""
        import pynvml

        if not math.isnan(self._since):
            return
        try:
            for one in self._counters:
                one.look()
            self._since = self._clock()
        except pynvml.NVMLError:
            self._since = math.nan

    def sample(self, seconds: float) -> float | None:
        """Look again. What NVML refuses once is a sample less, no more."""
        import pynvml

        if math.isnan(self._since):
            self.resume()
            return None
        if self._clock() - self._since < SHORTEST:
            return None
        try:
            return self._read()
        except pynvml.NVMLError:
            self._since = math.nan
            return None

    def drain(self) -> None:
        """Forget the last look: what came after it was no training."""
        self._since = math.nan

    def _read(self) -> float | None:
        values = [one.read() for one in self._counters]
        self._since = self._clock()
        mean = statistics.fmean(values)
        return mean if math.isfinite(mean) else None


class _Counter:
    """One counter of one GPU: the last look at it, and a place for the next."""

    def __init__(self, gpu: Any, metric: int) -> None:
        import pynvml

        self._gpu, self._metric = gpu, metric
        samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]
        self._last, self._next = samples
        weakref.finalize(self, _free, samples)

    def look(self) -> None:
        """Read the hardware."""
        import pynvml

        pynvml.nvmlGpmSampleGet(self._gpu, self._last)

    def read(self) -> float:
        """Read it again; return what lies between the two, in percent."""
        import pynvml

        pynvml.nvmlGpmSampleGet(self._gpu, self._next)
        asked = pynvml.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, 1
        asked.sample1, asked.sample2 = self._last, self._next
        asked.metrics[0].metricId = self._metric
        pynvml.nvmlGpmMetricsGet(asked)
        self._last, self._next = self._next, self._last
        (found,) = asked.metrics[:1]
        if found.nvmlReturn != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(found.nvmlReturn)
        return float(found.value)


def _free(samples: list[Any]) -> None:
    import pynvml

    for one in samples:
        try:
            pynvml.nvmlGpmSampleFree(one)
        except pynvml.NVMLError:
            return  # NVML was shut down, and with it what it held


class SmActivity(_Activity):
    """Measure the share of its multiprocessors that a GPU keeps busy; its utilization counts one as all."""

    counter: ClassVar[str] = "NVML_GPM_METRIC_SM_UTIL"
    metric: ClassVar[Metric] = _metric(
        "gpu_sm_activity_percent", "SM activity", "multiprocessors busy; median over the run"
    )


class TensorActivity(_Activity):
    """Measure the share of time in which tensor cores work: how much of the card's matrix rate is used."""

    counter: ClassVar[str] = "NVML_GPM_METRIC_ANY_TENSOR_UTIL"
    metric: ClassVar[Metric] = _metric(
        "gpu_tensor_activity_percent", "Tensor activity", "tensor cores at work; median over the run"
    )


class MemoryBandwidth(_Activity):
    """Measure the share of its memory bandwidth that a GPU uses."""

    counter: ClassVar[str] = "NVML_GPM_METRIC_DRAM_BW_UTIL"
    metric: ClassVar[Metric] = _metric(
        "gpu_memory_bandwidth_percent", "Memory bandwidth", "of the highest possible; median over the run"
    )
