"""Which pool `--engine` names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.errors import InputError
from bench.run.pool import Pool
from bench.suite.suite import Experiment

LOCAL, RAY = "local", "ray"


def make(
    engine: str,
    suite: Experiment,
    folder: Path,
    mirror: Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    *,
    tell: Callable[[str], None] = print,
) -> Pool:
    """Return the pool that an engine runs jobs in.

    Args:
        engine: local, ray or ray://HOST:PORT.
        suite: what it works for.
        folder: the suite's results.
        mirror: an offline mirror of the hub, if there is one.
        workers: jobs that compute at the same time.
        threads: of each job; those of the folder's first run when left out.
        tell: hears of machines that come and go.

    Raises:
        InputError: an unknown engine, or one that is not there.
    """
    name, separator, address = engine.partition("://")
    if name == RAY and bool(separator) == bool(address):
        from bench.run.ray import pool as ray_pool

        return ray_pool.of_cluster(suite, folder, mirror, workers, threads, address or None, tell)
    if engine == LOCAL:
        from bench.run import local_pool

        return local_pool.of_this_machine(suite, folder, mirror, workers, threads)
    raise InputError(f"--engine {engine}: must be {LOCAL}, {RAY} or {RAY}://HOST:PORT")
