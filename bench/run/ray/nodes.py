"""The nodes of a Ray cluster: which there are, what they declare, and whether they see what the run needs."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError, JobError, one_line
from bench.records import safe_files
from bench.run.ray import place as ray_place
from bench.suite.suite import Experiment, Suite

_LOOK_SECONDS = 2.0  # between two looks at which nodes there are
_CHECK_SECONDS = 120.0  # for a node to say what it sees: it imports the package
_CONNECT_SECONDS = 5.0
_HEAD_SECONDS = 30.0  # for which a head may be silent; after 60 Ray ends the process that waits for it, without a word


@dataclass(eq=False)
class Node:
    """A node of the cluster: what it declares. Two on one machine have one address."""

    id: str
    address: str
    processors: int
    gpus: int
    memory: int
    usable: bool = False  # it said that it sees the folder, and nothing was lost on it since
    told_of: bool = False

    @property
    def affinity(self) -> Any:
        """What has Ray place something there and nowhere else."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id=self.id, soft=False)


class Nodes:
    """The nodes that are there, as they come and go.

    Args:
        ray: the library, connected.
        suite: what they work for.
        folder: the suite's results, on a file system that all nodes share.
        mirror: an offline mirror of the hub, if there is one.
        tell: hears of nodes that come and go.

    Attributes:
        gone: whether the whole cluster is, so that Ray is to be asked for nothing more.
    """

    def __init__(
        self, ray: Any, suite: Experiment, folder: Path, mirror: Path | None, tell: Callable[[str], None]
    ) -> None:
        self.suite, self.folder, self.mirror, self.tell = suite, folder, mirror, tell
        self._ray = ray
        self._known = {one.id: one for one in self._alive()}
        self._asked: dict[Any, tuple[Node, Path]] = {}
        self._looked = self._seen = time.monotonic()
        self.gone = False
        self._head = str(ray.get_runtime_context().gcs_address)

    def see_head(self, *, now: bool = False) -> None:
        """See that the cluster's head answers, before anything is asked of Ray: it would wait for it. At most every other second.

        Raises:
            JobError: it does not, and has not for a while.
        """
        if not now and time.monotonic() - self._seen < _LOOK_SECONDS:
            return
        until = time.monotonic() + _HEAD_SECONDS
        while problem := _silence(self._head):
            if time.monotonic() > until:
                self.gone = True
                raise JobError(
                    f"the Ray cluster is gone: its head {self._head} does not answer ({problem}); checkpoints are kept in "
                    f"{self.folder}, the same command goes on"
                )
            time.sleep(1.0)
        self._seen = time.monotonic()

    def _alive(self) -> Iterator[Node]:
        for one in self._ray.nodes():
            if one["Alive"]:
                processors, gpus, memory = (int(one["Resources"].get(name, 0)) for name in ("CPU", "GPU", "memory"))
                yield Node(one["NodeID"], one["NodeManagerAddress"], processors, gpus, memory)

    @property
    def have_gpus(self) -> bool:
        """Whether jobs compute on GPUs: where any node has some, nobody wants a model trained on another's processors."""
        return isinstance(self.suite, Suite) and any(one.gpus for one in self._known.values())

    def computing(self) -> list[Node]:
        """List the nodes that jobs may compute on."""
        return [one for one in self._known.values() if (one.gpus if self.have_gpus else one.processors)]

    def check(self) -> None:
        """Ask every one of them what it sees.

        Raises:
            InputError: names the first that does not see the folder, or cannot run bench as it is here.
        """
        asked = {self._ask(node): node for node in self.computing()}
        refs = list(asked)
        self._ray.wait(refs, num_returns=len(refs), timeout=_CHECK_SECONDS)
        alive = {one.id for one in self._alive()}
        try:
            for ref, node in asked.items():
                problem = self._problem(ref)
                if problem and node.id in alive:  # else it left while it was asked, which is nobody's mistake
                    raise InputError(f"--engine ray: node {node.address} {problem}")
                node.usable = node.told_of = not problem
        finally:
            self.forget(refs)
        if not any(node.usable for node in asked.values()):
            raise InputError("--engine ray: every node left the cluster before it said what it sees")

    def doubt(self, node: Node) -> None:
        """Ask a node on which something was lost whether it is there, before anything else is begun on it."""
        if node.usable:
            node.usable = False
            self._ask(node)

    def _ask(self, node: Node) -> Any:
        """Ask a node what it sees."""
        safe_files.own_folder(self.folder, may_be_link=True)
        token = safe_files.temporary_name(self.folder / "shared")
        token.write_text("", encoding="utf-8")
        look = self._ray.remote(num_cpus=0, max_retries=0)(ray_place.look).options(scheduling_strategy=node.affinity)
        ref = look.remote(self.folder, token.name, _paths(self.suite, self.mirror), str(Path.cwd()), self.have_gpus)
        self._asked[ref] = node, token
        return ref

    def _problem(self, ref: Any) -> str:
        """Return what is wrong with a node that was asked; "" for nothing."""
        from bench import __version__

        try:
            version, problem = self._ray.get(ref, timeout=0)
        except self._ray.exceptions.GetTimeoutError:
            return f"did not say within {_CHECK_SECONDS:.0f} s what it sees; is posttrain-bench installed there?"
        except Exception as error:
            lines = str(error).strip().splitlines()
            return f"cannot run bench ({one_line(lines[-1] if lines else type(error).__name__, 200)}); install it there"
        if version != __version__:
            return f"has bench {version}, and this is {__version__}; install the same"
        return (
            f"{problem}; it must be on a file system that every node shares" if "does not see" in problem else problem
        )

    def forget(self, refs: Iterable[Any] | None = None) -> None:
        """Take away what nodes were to see, of these questions or of all."""
        for ref in list(self._asked) if refs is None else refs:
            self._asked.pop(ref)[1].unlink(missing_ok=True)

    def that_left(self) -> list[Node]:
        """Take in the nodes that joined, once they have said that they see the folder; return those that have left."""
        for ref in self._ray.wait(list(self._asked), num_returns=1, timeout=0)[0] if self._asked else ():
            node, problem = self._asked[ref][0], self._problem(ref)
            self.forget([ref])
            node.usable = not problem
            if not node.told_of:
                self.tell(f"node {node.address} joined" + (f" and is not used: it {problem}" if problem else ""))
            elif problem:
                self.tell(f"node {node.address} does not answer, and is used no more")
            node.told_of = True
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        self.see_head(now=True)
        alive = {one.id: one for one in self._alive()}
        left = [one for one in self._known.values() if one.id not in alive]
        for node in left:
            del self._known[node.id]
            self.tell(f"node {node.address} left" + ("" if self._known else "; waiting for another one"))
        for node in [one for one in alive.values() if one.id not in self._known]:
            self._known[node.id] = node
            self._ask(node)
        return left


def _paths(suite: Experiment, mirror: Path | None) -> list[str]:
    """List what of a suite lies in files that the nodes must see."""
    found = [str(mirror)] if mirror else []
    if isinstance(suite, Suite):
        of_source = (suite.model, suite.data.preference, suite.data.instruction)
        found += [str(Path(one.path).expanduser()) for one in of_source if one.source == "local" and one.path]
    return found


def connect(address: str | None) -> Any:
    """Return the library, connected to a cluster.

    Args:
        address: of its head; None: $RAY_ADDRESS, the cluster that this machine is part of, or one that is started on it.

    Raises:
        InputError: there is none.
    """
    where = address or os.environ.get("RAY_ADDRESS") or None
    if where and "://" in where:
        raise InputError(
            f"RAY_ADDRESS={where}: bench runs on a machine of the cluster, not through Ray's client; unset it there"
        )
    # Asked here at once, what Ray would find out after minutes and over many lines.
    if where and where not in ("local", "auto") and (problem := _silence(where)):
        raise InputError(
            f"--engine ray://{where}: nobody answers there ({problem}); it must be HOST:PORT of the head, as "
            "`ray start --head` prints it"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent home
    _agree_on_token(where)
    import ray

    if ray.is_initialized():  # for the suite before, of several in one call
        return ray
    try:
        # What workers say goes to Ray's logs: the records have it, and the screen shows the progress.
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"--engine ray: no cluster at {where or 'this machine'}: {one_line(lines[0], 300)}") from error
    return ray


def _agree_on_token(where: str | None) -> None:
    """Set RAY_AUTH_MODE as the cluster has it: given an address, Ray does not ask, and a wrong one ends in waiting for ever.

    Raises:
        InputError: the cluster asks for a token, and this machine has none or another.
    """
    if where == "local" or "RAY_AUTH_MODE" in os.environ or not _refused(where, "disabled"):
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if _refused(where, "token"):
        raise InputError(
            f"--engine ray: the cluster at {where or 'this machine'} asks for a token, and the one here is missing or another; "
            "copy ~/.ray/auth_token from the machine that started it, or set RAY_AUTH_TOKEN"
        )


def _refused(where: str | None, mode: str) -> bool:
    """Say whether a cluster refuses who comes in a mode; in the other case settle for the mode, if there is a cluster at all.

    Ray's own command is asked, since in this process it takes the mode for good.
    """
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "health-check"]
    done = subprocess.run(
        [*command, *(("--address", where) if where and where not in ("local", "auto") else ())],
        env=os.environ | {"RAY_AUTH_MODE": mode, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        os.environ["RAY_AUTH_MODE"] = mode
    return "authentication token" in done.stderr.lower()


def _silence(address: str) -> str:
    """Say why nobody answers at HOST:PORT; "" if somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return one_line(str(error))
    return ""
