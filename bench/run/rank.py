"""One of the processes that compute a job together: `torchrun -m bench.run.rank ADDRESS`, started by `ranks.py` for a worker."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from bench.records.spec import ON_SEVERAL_DEVICES
from bench.run.ranks import DAMAGE, DONE, FAILED, PROGRESS, RESUMED, STOP, Task, portable


def main(address: str) -> None:
    """Do what the worker says, and tell it how that ended."""
    own = socket.socket(socket.AF_UNIX)
    own.connect(address)
    pipe = Connection(own.detach())
    rank = int(os.environ["RANK"])
    pipe.send(rank)
    task: Task = pipe.recv()
    told = threading.Event()
    threading.Thread(target=_listen, args=(pipe, told), daemon=True).start()
    try:
        _work(task, pipe, rank, told)
    except BaseException as error:
        pipe.send((FAILED, (time.monotonic(), portable(error))))
        _leave(1)
    pipe.send((DONE, None))
    _leave(0)


def _work(task: Task, pipe: Connection, rank: int, told: threading.Event) -> None:
    import torch

    from bench.run import handlers
    from bench.run.context import WorkerContext

    torch.set_num_threads(task.threads)
    device = "cpu"
    if task.on_gpus:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)

    def tell(message: dict[str, Any]) -> None:
        if rank == 0:
            pipe.send((PROGRESS, message))

    context = WorkerContext(
        experiment=task.experiment,
        folder=task.folder,
        mirror=task.mirror,
        device=device,
        environment=task.environment,
        tell=tell,
        stopping=told.is_set,
        rank=rank,
        ranks=int(os.environ["WORLD_SIZE"]),
        trains=task.job.kind in ON_SEVERAL_DEVICES,
    )
    try:
        handlers.work_as_rank(task.job, context)
    finally:
        for what in context.healed if rank == 0 else ():
            pipe.send((DAMAGE, what))
        if context.resumed and rank == 0:
            pipe.send((RESUMED, list(context.resumed)))


def _listen(pipe: Connection, told: threading.Event) -> None:
    """Hear the wish to stop; without a worker end, so that nothing trains on unseen."""
    while True:
        try:
            if pipe.recv() == STOP:
                told.set()
        except (EOFError, OSError):
            os._exit(1)


def _leave(code: int) -> None:
    """End at once: what waits for another rank in the background would keep this one from it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
