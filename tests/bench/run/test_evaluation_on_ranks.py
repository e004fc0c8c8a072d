"""Evaluations split over the processes that torchrun starts inside a worker: the records are one process's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from on_ranks import beside, on, rank_processes

from bench.records import record
from bench.run import handlers
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]

EVALUATION: dict[str, Any] = {
    "lm_eval": {"tasks": ["world_questions"], "limit": 3, "batch_size": 2},
    "win_rate": {
        "prompts": 5,
        "generation": {"max_new_tokens": 6, "batch_size": 2},
        "judge": {"kind": "rule", "orders": "both"},
    },
    "base_kl": {"prompts": 3, "max_new_tokens": 5, "batch_size": 2},
}
WHOLE: dict[str, Any] = {"model": {"source": "random", "tuning": "full"}, "lora": None}


def of_policy(plan: Any, kind: str) -> str:
    """Return the job of a kind that asks the trained policy."""
    return next(job.id for job in plan.jobs.values() if job.kind == kind and job.inputs.policy)


def read(folder: Path) -> list[Any]:
    """Return what a job left on record: rows, scores, what was asked and how."""
    found = record.read_job(folder)
    return [list(found.rows("samples")), found.scores, found.data]


def close(one: Any, other: Any) -> bool:
    """Say whether two JSON values are equal, numbers to 1e-4."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == (pytest.approx(other, abs=1e-4) if isinstance(one, float) else other))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "parts"])
@pytest.mark.parametrize("full", [False, True], ids=["adapter", "all-weights"])
def test_ranks_leave_the_records_of_one_process(
    full: bool, in_parts: bool, devices: int, tiny: TinySuite, run_plan: Any
) -> None:
    """Whole models on each rank: equal to the last bit, as the same batches are made. Weights in parts: to 1e-4."""
    settings = tiny(evaluation=EVALUATION, **(WHOLE if full else {}))
    alone = run_plan(settings)
    own = settings.model_copy(update={"training": settings.training.model_copy(update={"shard": in_parts})})
    for kind in ("lm_eval", "generate", "base_answers", "base_kl"):
        start = of_policy(alone.plan, kind) if kind != "base_answers" else "base-answers"
        single = alone.run(start)
        runner = beside(run_plan, own, alone, start)
        job = on(runner, start, devices)
        status = handlers.run(job, runner.context)
        assert status["outcome"] == record.COMPLETE, status["message"]
        folder = runner.context.job_folder(job.id)
        expected = list(single.rows("samples")), single.scores, single.data
        assert close(read(folder), expected) if in_parts else read(folder) == expected, kind
        assert record.read_job(folder).spec["environment"]["devices"] == devices
        assert sorted(one.name for one in folder.iterdir()) == sorted(
            one.name for one in alone.context.job_folder(job.id).iterdir()
        )
    assert rank_processes() == []
