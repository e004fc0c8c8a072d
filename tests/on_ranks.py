"""What tests of jobs on several processes share: a job that takes them, a folder of its own, and who is still alive."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import Any

import psutil

from bench.records.spec import Resources
from bench.suite.suite import Suite


def on(runner: Any, start: str, devices: int) -> Any:
    """Have a plan's job take so many devices."""
    job = replace(runner.job(start), resources=Resources(devices=devices))
    runner.plan.jobs[job.id] = job
    return job


def beside(run_plan: Any, settings: Suite, other: Any, start: str) -> Any:
    """Return a runner in a folder of its own that has what a job needs from another one's."""
    runner = run_plan(settings.model_copy(update={"name": f"{settings.name}-{time.monotonic_ns()}"}))
    for need in other.job(start).needs:
        shutil.copytree(other.context.job_folder(need), runner.context.job_folder(need))
    return runner


def rank_processes() -> list[psutil.Process]:
    """Return the ranks that this process has."""
    found = []
    for one in psutil.Process().children(recursive=True):
        try:
            line = one.cmdline()
        except psutil.Error:
            continue
        if "bench.run.rank" in line and "--nproc-per-node" not in line:
            found.append(one)
    return found
