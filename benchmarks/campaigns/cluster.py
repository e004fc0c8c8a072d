"""A Ray cluster of several nodes on this machine, each with GPUs that it only declares, for runs whose nodes come and go."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Cluster:
    """Raylets on loopback. Use as a context manager.

    Args:
        nodes: how many at the start; the first is the head.
        gpus: that each declares. The machine need not have any: jobs then compute on its processors.
        processors: that each declares.
    """

    def __init__(self, nodes: int = 2, gpus: int = 2, processors: int = 2) -> None:
        self._count = nodes
        self._declared = {"num_cpus": processors, "num_gpus": gpus} if gpus else {"num_cpus": processors}
        self._nodes: list[Any] = []

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster as OfRay

        logging.getLogger("ray").setLevel(logging.ERROR)
        with _without_mask():
            self._cluster = OfRay(initialize_head=True, head_node_args={**self._declared, "include_dashboard": False})
        for _ in range(1, self._count):
            self.add()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()

    @property
    def engine(self) -> str:
        """What `bench run --engine` takes."""
        return f"ray://{self._cluster.address}"

    def add(self) -> None:
        """Have a node join."""
        with _without_mask():
            self._nodes.append(self._cluster.add_node(**self._declared))

    def kill(self) -> None:
        """Kill the node that joined last, with all that runs on it, by SIGKILL."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def actors(self) -> list[int]:
        """Return the processes of the actors at work on its nodes."""
        import psutil

        found = []
        for node in [self._cluster.head_node, *self._nodes]:
            for kept in node.all_processes["raylet"]:
                with contextlib.suppress(psutil.Error):
                    below = psutil.Process(kept.process.pid).children()
                    found += [
                        one.pid for one in below if one.cmdline()[:1] and one.cmdline()[0].startswith("ray::RayPlace")
                    ]
        return found

    def files(self) -> list[Path]:
        """List what Ray has written of its session."""
        folder = Path(self._cluster.head_node.get_session_dir_path())
        return [one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()]


@contextmanager
def _without_mask() -> Iterator[None]:
    """Start nodes without CUDA_VISIBLE_DEVICES, which would forbid them to declare GPUs that are not there."""
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden
