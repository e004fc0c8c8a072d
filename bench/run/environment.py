"""What a job ran on: package versions, commit, hardware. On record beside every result, never part of a job's hash."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "posttrain-bench",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "trl",
    "datasets",
    "lm-eval",
    "alpaca-eval",
    "numpy",
    "nvidia-ml-py",
    "ray",
)

_CODE = Path(__file__).resolve().parents[1]


def facts(device: str, workers: int) -> dict[str, Any]:
    """Return the environment block of a job's spec.json; called in the worker, whose threads it counts.

    Args:
        device: torch's name of the worker's device, such as cpu or cuda:0.
        workers: worker processes that share the machine.
    """
    torch = sys.modules.get("torch")  # a toy suite's worker does without
    return {
        "packages": packages(),
        "python": platform.python_version(),
        "commit": commit(),
        "hardware": hardware(),
        "workers": workers,
        "threads": torch.get_num_threads() if torch else 1,
        "device": device,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def packages() -> dict[str, str]:
    """Look the installed versions up without importing the packages."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the checkout this code runs from, `+changes` where the code differs; None outside one."""
    root = _CODE.parent
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:  # installed, perhaps inside somebody's repository
        return None
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return head + ("+changes" if _git("status", "--porcelain", "--", str(_CODE)) else "")


def hardware() -> dict[str, Any]:
    """Describe the machine: CPU model, logical cores, memory in bytes, GPUs by product name."""
    import psutil

    from bench.collectors import nvml

    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": nvml.names(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _git(*arguments: str) -> str | None:
    """Ask git; None where there is no git or no repository."""
    # A hook's GIT_DIR and the like name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_CODE, env=environment, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
