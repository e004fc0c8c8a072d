"""Runs of 6 steps on the untrained tiny model, job by job in this process, and whether two are the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench.plan import planner
from bench.records import record
from bench.run import handlers
from bench.run.context import WorkerContext
from bench.suite.suite import Suite
from bench.train.loop import Trainer, TrainingRun


def suite(**changes: Any) -> Suite:
    """Return a suite of 6 steps on the untrained tiny model: 6 pairs and 12 rows in batches of 2 and 4."""
    settings: dict[str, Any] = {
        "name": "loop",
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
        "methods": ["sequential", "mix", "alright", {"name": "maxright", "max_eval_every": 2}],
        "lambdas": [0.5],
    }
    return Suite.model_validate(settings | changes)


class Bench:
    """Run jobs of a plan in this process, on a context as a worker has it."""

    def __init__(self, settings: Suite, folder: Path) -> None:
        self.plan = planner.make(settings)
        self.stop_at: int | None = None
        self.seen = 0
        self.context = WorkerContext(settings, folder, None, "cpu", {"workers": 1}, self._tell, self._stopping)

    def _tell(self, message: dict[str, Any]) -> None:
        self.seen = message.get("step", self.seen)

    def _stopping(self) -> bool:
        return self.seen == self.stop_at

    def job(self, method: str) -> planner.JobSpec:
        return next(job for job in self.plan.jobs.values() if job.id.startswith(method))

    def run(self, method: str) -> record.Job:
        """Run a method's job and what it needs."""
        job = self.job(method)
        folder = self.context.job_folder(job.id)
        if not (folder / "status.json").exists() or record.read_job(folder).status["outcome"] == record.STOPPED:
            for need in job.needs:
                self.run(need)
            status = handlers.run(job, self.context)
            assert status["outcome"] == record.COMPLETE, status["message"]
        return record.read_job(folder)

    def losses(self, job: record.Job) -> list[dict[str, float]]:
        return [row["losses"] for row in job.rows("steps")]

    def trainer(self, method: str) -> Trainer:
        """Return a trainer at its first step, its clock and collectors idle."""
        job = self.job(method)
        base = self.context.base(self.plan.suite.model, None)
        folder = self.context.job_folder(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        reference = record.read_json(self.context.job_folder(job.inputs.reference_logps) / "reference_logps.json")
        made = Trainer(
            TrainingRun(
                job,
                self.plan.suite,
                folder,
                base,
                self.context.datasets(base.tokenizer, {}),
                self.plan.suite.training.batch_size,
                reference,
            )
        )
        made.row = {"probe_seconds": 0.0}
        return made


def adapter(job: record.Job) -> dict[str, torch.Tensor]:
    """Return the weights that a job saved: its adapter's, or all."""
    from safetensors.torch import load_file

    whole = job.path / "model" / "model.safetensors"
    return dict(load_file(whole if whole.exists() else job.path / "adapter" / "adapter_model.safetensors"))


def assert_same_run(one: record.Job, other: record.Job) -> None:
    """Two runs took the same steps and ended at the same weights, bit for bit; times apart."""
    timing = {"seconds", "probe_seconds", "training_seconds"}
    for name in ("steps", "trajectory"):
        rows = [
            [{key: value for key, value in row.items() if key not in timing} for row in job.rows(name)]
            for job in (one, other)
        ]
        assert rows[0] == rows[1]
    assert one.scores == other.scores
    first, second = adapter(one), adapter(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
