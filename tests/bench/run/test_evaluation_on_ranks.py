"""Evaluations split over the processes that torchrun starts inside a worker: the records are one process's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval_mirror
import pytest
from on_ranks import beside, on, rank_processes

from bench.records import record
from bench.run import devices as devices_of_jobs
from bench.run import handlers
from bench.suite.suite import Suite
from benchmarks.campaigns import base

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
SHORT = base.SUITE.split("  win_rate:")[0]
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
@pytest.mark.parametrize(
    ("full", "in_parts", "devices"),
    [(False, False, 2), (True, True, 4)],
    ids=["adapter-whole-2", "all-weights-parts-4"],
)
def test_ranks_leave_the_records_of_one_process(
    full: bool, in_parts: bool, devices: int, tiny: TinySuite, run_plan: Any
) -> None:
    """Whole models on each rank: equal to the last bit, as the same batches are made. Weights in parts: to 1e-4."""
    settings = tiny(evaluation=EVALUATION, **(WHOLE if full else {}))
    alone = run_plan(settings)
    own = settings.model_copy(update={"training": settings.training.model_copy(update={"shard": in_parts})})
    assert devices_of_jobs.shards(own, "cpu", trains=False) == in_parts
    for kind in ("lm_eval", "generate", "base_answers", "base_kl"):
        start = of_policy(alone.plan, kind) if kind != "base_answers" else "base-answers"
        alone.run(start)
        runner = beside(run_plan, own, alone, start)
        job = on(runner, start, devices)
        status = handlers.run(job, runner.context)
        assert status["outcome"] == record.COMPLETE, status["message"]
        folder = runner.context.job_folder(job.id)
        expected = read(alone.context.job_folder(job.id))
        assert close(read(folder), expected) if in_parts else read(folder) == expected, kind
        assert record.read_job(folder).spec["environment"]["devices"] == devices
        assert sorted(one.name for one in folder.iterdir()) == sorted(
            one.name for one in alone.context.job_folder(job.id).iterdir()
        )
    assert rank_processes() == []


@pytest.mark.slow
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "parts"])
def test_ranks_answer_tasks_of_every_kind(in_parts: bool, tiny: TinySuite, run_plan: Any, tmp_path: Path) -> None:
    """Answers in words, continuations of several tokens, and likelihoods of whole texts, in lm-eval's own way; to 1e-4."""
    tasks = {"tasks": ["gsm8k", "hellaswag", "wikitext"], "limit": 5, "batch_size": 2, "shots": 0}
    settings = tiny(evaluation={"lm_eval": tasks})
    alone = run_plan(settings)
    own = settings.model_copy(update={"training": settings.training.model_copy(update={"shard": in_parts})})
    start = of_policy(alone.plan, "lm_eval")
    alone.context.mirror = lm_eval_mirror.write(tmp_path / "mirror")
    alone.run(start)
    runner = beside(run_plan, own, alone, start)
    runner.context.mirror = alone.context.mirror
    job = on(runner, start, 2)
    status = handlers.run(job, runner.context)
    assert status["outcome"] == record.COMPLETE, status["message"]
    assert close(read(runner.context.job_folder(job.id)), read(alone.context.job_folder(job.id)))


@pytest.mark.slow
def test_a_rank_that_dies_fails_the_attempt_and_the_next_one_completes(tiny: TinySuite, run_plan: Any) -> None:
    settings = tiny(evaluation=EVALUATION)
    alone = run_plan(settings)
    start = of_policy(alone.plan, "lm_eval")
    alone.run(start)
    runner = beside(run_plan, settings, alone, start)
    job = on(runner, start, 2)

    def kill_one(message: dict[str, Any]) -> None:
        if "asking" in message.get("text", ""):
            rank_processes()[-1].kill()

    runner.context.tell = kill_one
    status = handlers.run(job, runner.context)
    assert (status["outcome"], status["error"], status["transient"]) == (record.FAILED, "RankDied", True)
    assert "of 2 ended before its work was done" in status["message"]
    assert rank_processes() == []
    runner.context.tell = lambda message: None
    assert handlers.run(job, runner.context)["outcome"] == record.COMPLETE
    assert read(runner.context.job_folder(job.id)) == read(alone.context.job_folder(job.id))


@pytest.mark.slow
def test_the_command_splits_evaluations_and_leaves_the_records_of_one_process(tmp_path: Path) -> None:
    """The same suite twice, once with the key; a plan says which jobs take two devices, and their ids are the same."""
    one, two = (
        base.write_suite(tmp_path / name, SHORT.replace("evaluation:\n", f"evaluation:\n  devices: {devices}\n"))
        for name, devices in (("one", "1"), ("two", "2"))
    )
    code, said = base.call("plan", str(two), "--results", str(tmp_path / "none"))
    assert code == 0 and "questions (lm-eval): 6 pending; each on 2 devices" in said, said
    for suite, results in ((one, "a"), (two, "b")):
        only = ("--only", "questions-sft-optimum-*", "--threads", "2")
        code, said = base.call("run", str(suite), "--results", str(tmp_path / results), *only)
        assert code == 0, said
    whole, split = (base.contents(tmp_path / name / "small") for name in "ab")
    assert base.difference(whole, split) == ""
    (spec,) = (tmp_path / "b").glob("small/jobs/questions-sft-optimum-*/spec.json")
    assert record.read_json(spec)["environment"]["devices"] == 2
