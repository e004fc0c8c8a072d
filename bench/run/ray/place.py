"""What runs on the nodes of a Ray cluster: a look around, and the actor that holds a worker process there."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.records import safe_files
from bench.records.spec import JobSpec
from bench.run import gpus, local_pool
from bench.suite.suite import Experiment

_GATHER_SECONDS = 0.2  # for which news are gathered before they are passed on


@dataclass(frozen=True)
class Share:
    """What of a node an actor has, and what it works for. It travels to the node, and holds no key.

    Attributes:
        size: devices, or shares of the processors.
        threads: of a job on one of them.
        threads_alone: of a job that has the node for itself.
        sharing: workers on the node's machine.
        on_gpus: whether the devices are GPUs.
        working_folder: of the command; where the suite's relative paths begin.
    """

    suite: Experiment
    folder: Path
    mirror: Path | None
    size: int
    threads: int
    threads_alone: int
    sharing: int
    on_gpus: bool
    working_folder: str


def look(folder: Path, token: str, paths: Sequence[str], working_folder: str, on_gpus: bool) -> tuple[str, str]:
    """Say which version a node has, and what is wrong with it; "" for nothing.

    Args:
        folder: the suite's results, which the node must see, with the file `token` in it, and write to.
        token: a file's name.
        paths: of a model and data, that must be there, too.
        working_folder: where relative ones begin.
        on_gpus: whether torch must be able to use GPUs.
    """
    from bench import __version__

    _go_to(working_folder)
    if not (folder / token).is_file():
        return __version__, f"does not see {folder} as it is on the machine of the command"
    own = safe_files.temporary_name(folder / token)
    try:
        own.write_text("", encoding="utf-8")
        own.unlink()
    except OSError as error:
        return __version__, f"cannot write to {folder}: {error.strerror}"
    missing = next((path for path in paths if not Path(path).exists()), None)
    if missing:
        return __version__, f"does not see {missing}"
    try:
        if on_gpus:
            gpus.check()
    except BenchError as error:
        return __version__, str(error)
    return __version__, ""


def _go_to(folder: str) -> None:
    with contextlib.suppress(OSError):  # where it is not there, nothing relative is asked for, or `look` has said so
        os.chdir(folder)


class RayPlace:
    """Hold a worker process on a node: the one of a local pool, with all that it keeps between jobs.

    Ray sets CUDA_VISIBLE_DEVICES to the GPUs that are the actor's. It has the environment of its node, keys included.
    """

    def __init__(self, share: Share) -> None:
        _go_to(share.working_folder)
        if not (share.on_gpus and _gpus_there()):
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # The worker process begins without this one's main module, which would import Ray again.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._pool = local_pool.LocalPool(
            share.suite,
            share.folder,
            share.mirror,
            size=share.size,
            threads=share.threads,
            threads_alone=share.threads_alone,
            sharing=share.sharing,
        )

    def is_there(self) -> bool:
        return True

    def listen(
        self, job: JobSpec | None = None, attempts: Sequence[dict[str, Any]] = ()
    ) -> list[tuple[str, dict[str, Any]]]:
        """Start a job, if one is given, and return the news of the one at hand, once there are some."""
        if job is not None:
            place = self._pool.idle(job)
            assert place is not None, "the actor was made for such a job, and has no other"
            self._pool.give(place, job, attempts)
        found = self._pool.events(None)
        until = time.monotonic() + _GATHER_SECONDS
        while found and found[-1].kind == "progress" and (left := until - time.monotonic()) > 0:
            found += self._pool.events(left)
        return [(one.kind, one.message) for one in found]

    def stop(self) -> None:
        """Ask the job at hand to keep a checkpoint and end."""
        self._pool.stop()

    def close(self) -> None:
        """End the process."""
        self._pool.close()


def _gpus_there() -> bool:
    """Whether the machine has the GPUs that its node declares."""
    from bench.collectors import nvml

    return bool(nvml.uuids())
