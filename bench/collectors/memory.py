"""Peak memory of training: of the process on a CPU, of torch's tensors on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.collectors import Collector, Combine, Unavailable, Watched
from bench.records.metrics import Metric

PROCESS = Path("/proc/self")


class Memory(Collector):
    """Measure peak memory, reset at the start of every stretch so that an evaluation's peak does not count.

    On a CPU it is the resident set of the process (VmHWM), base model and libraries included; on a GPU what torch has
    allocated on the device (`max_memory_allocated`).
    """

    metric: ClassVar[Metric] = Metric(
        "peak_memory_bytes",
        "Peak memory",
        "B",
        better="lower",
        kind="cost",
        meaning="of the training process or device",
        low=0.0,
        tolerance=0.05,
        relative=True,
        choose="memory",
        of_process=True,
    )
    combine: ClassVar[Combine] = max
    over_devices: ClassVar[str] = "sum"

    def __init__(self, watched: Watched) -> None:
        self._peak = 0
        self._device = watched.device if watched.device.startswith("cuda") else None
        if self._device:
            import torch

            if not torch.cuda.is_available():
                raise Unavailable("torch sees no CUDA device")
        self.resume()
        self.pause()
        self.drain()

    def resume(self) -> None:
        """Begin a stretch of training."""
        if self._device:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _reset_process_peak()

    def pause(self) -> None:
        """End a stretch of training."""
        if self._device:
            import torch

            peak = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = _process_peak()
        self._peak = max(self._peak, peak)

    def drain(self) -> float | None:
        """Return the peak since the last call, in bytes."""
        peak, self._peak = self._peak, 0
        return peak or None


def _reset_process_peak() -> None:
    """Set VmHWM to what is resident now; see proc(5)."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError as error:
        raise Unavailable(f"{PROCESS}/clear_refs, which resets the peak, cannot be written: {error.strerror}") from None


def _process_peak() -> int:
    """Read VmHWM in bytes; /proc gives KiB."""
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise Unavailable(f"{PROCESS}/status has no VmHWM")
