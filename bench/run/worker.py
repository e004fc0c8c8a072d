"""A worker: one process per device that keeps the base model loaded and runs one job after another.

It talks to the parent over a pipe: jobs come in, progress and outcomes go out. SIGTERM, from its parent or from a scheduler, asks
it to keep a checkpoint and stop; Ctrl-C is its parent's to take. It ends when its parent is gone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.errors import one_line
from bench.run.signals import Told
from bench.suite.suite import Experiment, Suite


@dataclass(frozen=True)
class WorkerConfig:
    """Say where a worker sits: its device, its threads, and what it works for."""

    suite: Experiment
    folder: Path
    mirror: Path | None
    visible_gpu: str | None
    threads: int
    workers: int


def main(pipe: Connection, config: WorkerConfig) -> None:
    """Run jobs until the parent closes the pipe; where this process cannot even start, say why in a line."""
    try:
        _serve(pipe, config)
    except Exception as error:
        if os.environ.get("BENCH_TRACEBACK"):
            raise
        print(f"bench: a worker cannot go on: {type(error).__name__}: {one_line(str(error))[:300]}", file=sys.stderr)
        os._exit(70)


def _serve(pipe: Connection, config: WorkerConfig) -> None:
    signals = Told()
    logging.raiseExceptions = False  # a log that cannot be written, as on a full disk, ends nothing
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    # Before torch is imported: it reads these once.
    os.environ["CUDA_VISIBLE_DEVICES"] = config.visible_gpu or ""
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
    if isinstance(config.suite, Suite) and config.suite.training.deterministic:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # without it cuBLAS may sum in another order each time
    # Threads that wait for each other spin for a moment only: docs/decisions/threads.md.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The parent shows the progress; libraries' bars would be drawn over it.
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")

    from bench.run import environment, handlers
    from bench.run.context import WorkerContext

    if isinstance(config.suite, Suite):  # a toy needs no torch, whose import would be most of its time
        import torch

        torch.set_num_threads(config.threads)
    device = "cuda:0" if config.visible_gpu is not None else "cpu"

    def tell(message: dict[str, Any]) -> None:
        try:
            pipe.send(("progress", message))
        except OSError:  # the parent is gone: leave the job as a kill would, for the next run to go on with
            os._exit(1)

    context = WorkerContext(
        experiment=config.suite,
        folder=config.folder,
        mirror=config.mirror,
        device=device,
        environment=environment.facts(device, config.workers),
        tell=tell,
        stopping=lambda: signals.told,
    )
    while not signals.told:
        try:
            job, attempts = pipe.recv()
        except EOFError:
            return
        pipe.send(("done", handlers.run(job, context, attempts)))


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is killed, so that nothing trains on unseen."""
    while os.getppid() == parent:
        threading.Event().wait(1.0)
    os._exit(1)
