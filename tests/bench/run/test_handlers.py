"""What a worker does around a job that trains: memory given back before it, and what others had a part in marked after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.collectors import COLLECTORS
from bench.models import memory
from bench.records import record
from bench.run import handlers
from bench.suite.suite import Suite
from bench.train import run_log


def test_of_a_shared_machine_only_a_process_own_peak_is_not_marked(tiny: Callable[..., Suite], run_plan: Any) -> None:
    """Seconds, utilization, memory in use and energy change with what else runs; counts do not."""
    runner = run_plan(tiny())
    runner.context.environment["workers"] = 2
    made = runner.run("mix").measurements
    marked = {name for name, entry in made.items() if entry.get("shared_machine")}
    costs = {one.name for one in run_log.metrics() if one.kind == "cost"}
    costs -= {run_log.GRADIENTS.name, run_log.COMPILING.name}  # nothing was
    assert marked == costs - {"peak_memory_bytes"}
    assert marked >= {"first_step_seconds", "gpu_memory_used_bytes", "gpu_utilization_percent", "energy_joules"}
    assert [name for name, kind in COLLECTORS.items() if kind.metric.of_process] == ["peak_memory_bytes"]


def test_memory_is_given_back_before_a_job_trains(
    tiny: Callable[..., Suite], run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three jobs that train, each once and before its first step; evaluation does without."""
    events: list[str] = []
    runner = run_plan(tiny())
    monkeypatch.setattr(memory, "release", lambda device: events.append("release"))
    runner.context.tell = lambda told: events.append(f"step {told['step']}") if "step" in told else None
    runner.run("mix")
    trained = [
        job for job in runner.plan.jobs.values() if job.kind == "train" and (runner.folder / "jobs" / job.id).exists()
    ]
    assert events.count("release") == len(trained) > 1
    assert events.count("step 1") == len(trained)
    before = [events[place - 1] for place, event in enumerate(events) if event == "step 1"]
    assert before == ["release"] * len(trained)


def test_on_a_gpu_the_cache_is_emptied_and_the_peak_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("cache"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: done.append(f"peak of {device}"))
    memory.release(torch.device("cpu"))
    assert done == []
    memory.release(torch.device("cuda", 1))
    assert done == ["cache", "peak of cuda:1"]


def test_a_job_that_goes_on_keeps_where_it_ran_before(tiny: Callable[..., Suite], run_plan: Any) -> None:
    """A checkpoint is what it goes on from; without one it begins anew, and only the last machine counts."""
    runner = run_plan(tiny())
    job = runner.job("mix")
    folder = runner.context.job_folder(job.id)
    runner.needs("mix")
    (folder / "checkpoints").mkdir(parents=True)
    first = {"hardware": {"cpu": "first"}, "workers": 1}
    who = {"id": job.id, "kind": "train", "labels": {}}
    record.write_json(folder / "spec.json", who | {"environment": first})
    assert handlers._earlier_environments(folder) == []
    (folder / "checkpoints" / "step-2.pt").touch()
    assert handlers._earlier_environments(folder) == [first]
    record.write_json(folder / "spec.json", who | {"environment": first, "environments": [first, first]})
    assert handlers._earlier_environments(folder) == [first, first]
    (folder / "checkpoints" / "step-2.pt").unlink()
    assert [one["workers"] for one in runner.run("mix").spec["environments"]] == [1]


def test_a_log_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    """An error of a library is in its traceback, too; lines and their indents stay."""
    with handlers._log_to(tmp_path / "log.txt") as log:
        try:
            raise ValueError("the hub says \x1b[2J\x1b]0;owned\x07gone\r\n  for good")
        except ValueError:
            log.exception("it failed")
    lines = (tmp_path / "log.txt").read_text().split("\n")
    assert lines[0].endswith(" ERROR it failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[2].startswith('  File "')
    assert lines[-3:] == ["ValueError: the hub says gone", "  for good", ""]


def test_a_job_waits_for_the_worker_of_an_earlier_attempt_and_leaves_its_record_alone(
    tiny: Callable[..., Suite], run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was cut off holds the folder still: the attempt fails, by no fault of the job's; once it is free, it goes on."""
    from filelock import FileLock

    monkeypatch.setattr(handlers, "_LEAVING_SECONDS", 0.1)
    runner = run_plan(tiny())
    job = runner.job("sft-optimum")
    folder = runner.folder / "jobs" / job.id
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("its own")
    with FileLock(folder / ".lock"):
        status = handlers.run(job, runner.context)
    assert (status["outcome"], status["error"], status["transient"]) == ("failed", "Timeout", True)
    assert (folder / "status.json").read_text() == "its own"
    assert handlers.run(job, runner.context)["outcome"] == "complete"
    assert runner.run("sft-optimum").complete and "/.lock" not in str(record.read_json(folder / "status.json")["files"])
