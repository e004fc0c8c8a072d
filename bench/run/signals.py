"""What a scheduler, a closed terminal or Ctrl-C sends: heard between two looks at the workers, never in the middle of one."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

# Slurm warns by SIGUSR1 and ends by SIGTERM, Kubernetes by SIGTERM; both may signal whole groups. A closed terminal: SIGHUP.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


class Signals:
    """Take the signals that ask a run to stop. Use as a context manager, in the main thread.

    Attributes:
        first: the first one's name; None: none came.
        hurried: whether Ctrl-C came again, which does not wait for checkpoints.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self.hurried = False
        self._before: dict[int, Any] = {}
        self._read, self._write = -1, -1

    def fileno(self) -> int:
        """Return what becomes readable once a signal has come."""
        return self._read

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self.hurried = self.hurried or (self.first is not None and name == "SIGINT")
        self.first = self.first or name
        os.write(self._write, b"!")


class Told:
    """Hear them in a worker: it goes on to the end of its step, and keeps a checkpoint. Ctrl-C is its parent's to tell."""

    def __init__(self) -> None:
        self.told = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in STOPPING:
            if number != signal.SIGINT:
                signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.told = True
