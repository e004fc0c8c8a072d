"""A small suite on the untrained tiny model, and a way to run the jobs of its plan in this process."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from loopback_batches import batches as batches
from loopback_dialects import dialect as dialect
from loopback_judge import endpoint as endpoint
from model_server import _llama_server as _llama_server
from model_server import _transformers_server as _transformers_server
from model_server import llama_server as llama_server
from model_server import transformers_server as transformers_server

from bench.plan import planner
from bench.records import record
from bench.registry import Registry
from bench.run import handlers
from bench.run.context import WorkerContext
from bench.suite.suite import Suite


class PlanRunner:
    """Run jobs of a plan, and what they need, on a context as a worker has it."""

    def __init__(self, settings: Suite, folder: Path) -> None:
        self.suite, self.folder, self.plan = settings, folder, planner.make(settings)
        self.context = WorkerContext(settings, folder, None, "cpu", {"workers": 1}, lambda message: None, lambda: False)

    def job(self, start: str) -> planner.JobSpec:
        """Return the first job whose id starts with some letters."""
        return next(job for job in self.plan.jobs.values() if job.id.startswith(start))

    def needs(self, start: str) -> None:
        """Run what a job needs."""
        for need in self.job(start).needs:
            self.run(need)

    def run(self, start: str) -> record.Job:
        """Run a job with what it needs, unless it is complete; return its record."""
        job = self.job(start)
        folder = self.context.job_folder(job.id)
        if not (folder / "status.json").exists():
            self.needs(start)
            status = handlers.run(job, self.context)
            assert status["outcome"] == record.COMPLETE, status["message"]
        return record.read_job(folder)


@pytest.fixture
def tiny() -> Callable[..., Suite]:
    """Return a maker of suites: 6 steps, 6 pairs and 12 rows in batches of 2 and 4; its arguments replace keys."""

    def make(**changes: Any) -> Suite:
        settings: dict[str, Any] = {
            "name": "tiny",
            "model": {"source": "random"},
            "lora": {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]},
            "data": {
                "preference": {"source": "world", "rows": 6, "evaluation_rows": 3},
                "instruction": {"source": "world", "rows": 12, "evaluation_rows": 3},
            },
            "training": {
                "epochs": 2,
                "batch_size": {"dpo": 2, "sft": 4},
                "learning_rate": 1e-2,
                "evaluate_every": 2,
                "checkpoint_every": 2,
            },
            "methods": ["mix"],
            "lambdas": [0.5],
        }
        return Suite.model_validate(settings | changes)

    return make


@pytest.fixture
def run_plan(tmp_path: Path) -> Callable[[Suite], PlanRunner]:
    """Return a maker of runners, each suite in a folder of its own name."""
    return lambda settings: PlanRunner(settings, tmp_path / settings.name)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Registry[Any], str, type], None]:
    """Return a way to offer a class under a name in a table, as another package's entry point does."""

    def add(table: Registry[Any], name: str, kind: type) -> None:
        point = EntryPoint(name, f"{kind.__module__}:{kind.__name__}", table.group)
        monkeypatch.setitem(table._points, name, point)
        assert table.contract is not None and table.contract.misfit(kind) is None
        monkeypatch.setitem(table._loaded, name, table.contract.watch(kind, table.whose(name)))

    return add
