"""Be torchrun, deaf to what a scheduler sends to every process: a worker tells its ranks to stop, between two steps."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Leave those signals to the worker, and start the ranks."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # the ranks inherit it
    from torch.distributed.run import main as torchrun

    torchrun(sys.argv[1:])


if __name__ == "__main__":
    main()
