"""Sides: fresh processes that set themselves up and then work only when it is their turn.

So neither side's libraries, threads or memory reach into the other's, and both stay loaded while they alternate.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.rows import SECONDS_AT_MOST, Context, RowFailed


class Turns:
    """Talk to the parent from inside a side."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def ready(self, facts: dict[str, Any]) -> None:
        """Say that the set-up is over."""
        self._pipe.send(("ready", facts))

    def wait(self) -> None:
        """Wait for the next turn; the process ends here when there is none.

        Raises:
            SystemExit: it does, and gives back what it holds of the system.
        """
        try:
            self._pipe.recv()
        except EOFError:
            raise SystemExit(0) from None

    def done(self, result: dict[str, Any]) -> None:
        """Hand back what a turn came to."""
        self._pipe.send(("done", result))


class Side:
    """Run `module:function(turns, **settings)` in a fresh process with these variables, too; `with` ends it."""

    def __init__(
        self, context: Context, target: str, environment: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        self.name, self.until = target, context.until
        self.log = context.folder("logs") / f"{target.replace(':', '.')}.txt"
        settled = variables(context) | dict(environment or {})
        started: Any = _fresh_processes(context, settled)
        self._pipe, theirs = started.Pipe()
        self._process = started.Process(
            target=_main, args=(theirs, target, str(self.log), context.threads, settled, settings), daemon=True
        )
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._pipe.close()
        self._process.join(5 if self.until is None else 2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def ready(self) -> dict[str, Any]:
        """Wait until the side is set up; return what it has to tell."""
        return self._receive("ready")

    def turn(self) -> dict[str, Any]:
        """Let the side take one turn; return its result."""
        self._pipe.send(None)
        return self._receive("done")

    def first(self) -> dict[str, Any]:
        """Wait for the result of a side that takes its first turn unasked."""
        return self._receive("done")

    def result(self) -> dict[str, Any]:
        """Wait for the end of a side that takes no turns; return what its function returned."""
        return self._receive("end")

    def _receive(self, wanted: str) -> dict[str, Any]:
        try:
            left = SECONDS_AT_MOST if self.until is None else max(0.0, self.until - time.monotonic())
            if not self._pipe.poll(left):
                when = f"in {SECONDS_AT_MOST:g} s" if self.until is None else "before the row's time was over"
                raise RowFailed(f"{self.name}: no answer {when}")
            kind, content = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            raise RowFailed(f"{self.name}: its process died (exit code {self._process.exitcode})") from None
        if kind == "failed":
            raise RowFailed(f"{self.name}: {content}")
        if kind != wanted:
            raise RowFailed(f"{self.name}: it should be {wanted!r} and is {kind!r}; too few steps?")
        return dict(content)


def call(context: Context, target: str, **settings: Any) -> dict[str, Any]:
    """Call a function in a fresh process; return what it returns."""
    with Side(context, target, **settings) as side:
        return side.result()


def _fresh_processes(context: Context, variables: dict[str, str]) -> Any:
    """Return what starts processes: each from nothing, or from one that has imported `preload` and done nothing else.

    That one lives as long as this process, and gets its variables from here: what is imported reads them once.
    """
    if not context.preload:
        return multiprocessing.get_context("spawn")
    os.environ.update(variables)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([context.preload])
    return forks


def variables(context: Context) -> dict[str, str]:
    """Return the environment of every side: no network, caches in the work folder only, and no GPU or only the first one."""
    first_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return {
        "CUDA_VISIBLE_DEVICES": "" if context.device == "cpu" else first_gpu,
        # Libraries ask whether there is a card when they are imported; this way the answer does not take hold of it.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "OMP_NUM_THREADS": str(context.threads),
        "MKL_NUM_THREADS": str(context.threads),
        # As in this project's workers: threads that wait must not spin on while it is another side's turn.
        "GOMP_SPINCOUNT": "10000",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(context.folder("datasets")),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _main(pipe: Any, target: str, log: str, threads: int, variables: dict[str, str], settings: dict[str, Any]) -> None:
    os.environ.update(variables)  # before torch is imported, which reads them once
    with Path(log).open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    module, _, function = target.partition(":")
    try:
        import torch

        torch.set_num_threads(threads)
        result = getattr(importlib.import_module(module), function)(Turns(pipe), **settings)
        pipe.send(("end", result or {}))
    except Exception as error:
        import traceback

        traceback.print_exc()
        first = (str(error).strip().splitlines() or ["no message"])[0][:300]
        pipe.send(("failed", f"{type(error).__name__}: {first}"))
