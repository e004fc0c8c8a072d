"""This project's side: jobs of a plan, run as a worker runs them."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.methods import Objective
from bench.plan import planner
from bench.records import record
from bench.records.spec import JobSpec
from bench.run import environment, handlers
from bench.run.context import WorkerContext
from bench.suite.suite import Suite
from bench.train.loop import Trainer
from benchmarks.sides import Turns

# Batches that a side shows its opponent, which has to take the same ones.
_BATCHES = 64


class Bench:
    """Run the jobs of a suite in this process."""

    def __init__(self, suite: dict[str, Any], folder: str, mirror: str | None = None, device: str = "cpu") -> None:
        settings = Suite.model_validate(suite)
        where = Path(mirror) if mirror else None
        self.plan = planner.make(settings, where)
        facts = environment.facts(device, 1)
        self.context = WorkerContext(settings, Path(folder), where, device, facts, lambda message: None, lambda: False)

    def job(self, start: str) -> JobSpec:
        """Return the first job whose id begins so."""
        return next(job for job in self.plan.jobs.values() if job.id.startswith(start))

    def run_needs(self, job: JobSpec) -> None:
        """Run what a job needs and is not complete."""
        for need in job.needs:
            if not (self.context.job_folder(need) / "status.json").exists():
                self.run(self.plan.jobs[need])

    def run(self, job: JobSpec) -> dict[str, Any]:
        """Run a job after what it needs; return its status.

        Raises:
            RuntimeError: it failed.
        """
        self.run_needs(job)
        status = handlers.run(job, self.context)
        if status["outcome"] != record.COMPLETE:
            raise RuntimeError(f"{job.id}: {status['message']}")
        return status


def steps(turns: Turns, suite: dict[str, Any], folder: str, job: str) -> None:
    """Take one step of a training job a turn: step, records and all that stands around it.

    Ready with the rows and the batches to come: {"examples": {objective: [{"prompt", "answers"}]}, "batches": {objective:
    [[row numbers]]}}.
    A turn is done with its seconds and losses.
    """
    made = Bench(suite, folder)
    clock = {"started": 0.0}

    def tell(message: dict[str, Any]) -> None:
        if "step" in message and "losses" in message:
            seconds = time.perf_counter() - clock["started"]
            turns.done({"seconds": seconds, "losses": message["losses"]})
            turns.wait()
            clock["started"] = time.perf_counter()

    def begin(trainer: Trainer) -> None:
        turns.ready({"batches": coming_batches(trainer), "examples": examples(trainer)})
        turns.wait()
        clock["started"] = time.perf_counter()

    wanted = made.job(job)
    made.run_needs(wanted)
    made.context.tell = tell
    with after_start(begin):
        made.run(wanted)


def coming_batches(trainer: Trainer) -> dict[str, list[list[int]]]:
    """List the batches that a trainer is about to draw, without drawing them."""
    twin = copy.deepcopy(trainer.batches)
    return {str(one): [list(twin.to_descend(one)) for _ in range(_BATCHES)] for one in Objective}


def examples(trainer: Trainer) -> dict[str, list[dict[str, Any]]]:
    """Return the tokenized training rows by objective: {"prompt": ids, "answers": [ids]}."""
    return {
        str(objective): [
            {"prompt": list(one.prompt), "answers": [list(ids) for ids in one.answers]} for one in split.examples
        ]
        for objective, split in trainer.run.datasets.train.items()
    }


@contextmanager
def after_start(then: Callable[[Trainer], None]) -> Iterator[None]:
    """Call a function with the trainer once it stands at its first step."""
    start = Trainer.start

    def started(self: Trainer) -> None:
        start(self)
        then(self)

    Trainer.start = started  # type: ignore[method-assign]
    try:
        yield
    finally:
        Trainer.start = start  # type: ignore[method-assign]


def bare_loop(turns: Turns, suite: dict[str, Any], folder: str, job: str) -> None:
    """Take the steps of a Mix job as a bare PyTorch loop would: no method, records, clock, collectors or checkpoints."""

    def loop(trainer: Trainer) -> None:
        settings = trainer.settings
        optimizer = torch.optim.AdamW(
            trainer.parameters,
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            weight_decay=settings.weight_decay,
        )
        lambda_dpo = trainer.run.job.run_labels.lambda_dpo
        assert lambda_dpo is not None
        weights = {Objective.DPO: lambda_dpo}
        weights[Objective.SFT] = 1 - lambda_dpo
        trainer.policy.model.train()
        turns.ready({"batches": coming_batches(trainer), "examples": examples(trainer)})
        while True:
            turns.wait()
            started = time.perf_counter()
            losses = {str(one): _descend(trainer, one, weight) for one, weight in weights.items()}
            torch.nn.utils.clip_grad_norm_(trainer.parameters, settings.max_grad_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            turns.done({"seconds": time.perf_counter() - started, "losses": losses})

    made = Bench(suite, folder)
    with after_start(loop):
        made.run(made.job(job))


def _descend(trainer: Trainer, objective: Objective, weight: float) -> float:
    total = 0.0
    for part in trainer.parts(objective, trainer.batches.to_descend(objective)):
        loss = trainer.losses.of(part)[0]
        (weight * loss).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def matmul(turns: Turns, dtype: str, size: int = 2048, repeats: int = 4) -> None:
    """Multiply two square matrices some times a turn, and tell the rate."""
    left, right = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
    turns.ready({})
    while True:
        turns.wait()
        started = time.perf_counter()
        for _ in range(repeats):
            left @ right
        seconds = time.perf_counter() - started
        turns.done({"seconds": seconds, "flops_per_second": repeats * 2 * size**3 / seconds})


def run_what_is_needed(turns: Turns, suite: dict[str, Any], folder: str, by: Sequence[str]) -> None:
    """Run what some jobs need, and not these jobs; `by` has the beginnings of their ids."""
    del turns
    made = Bench(suite, folder)
    for start in by:
        made.run_needs(made.job(start))


def run_jobs(
    turns: Turns, suite: dict[str, Any], folder: str, only: Sequence[str] = (), again: bool = False
) -> dict[str, Any]:
    """Run jobs by the beginning of their ids, or all; return their seconds and measurements by id.

    Args:
        turns: unused.
        suite: the suite.
        folder: its results.
        only: beginnings of ids; none: every job.
        again: run them although they are complete.
    """
    del turns
    made = Bench(suite, folder)
    chosen = [made.job(start) for start in only] if only else list(made.plan.jobs.values())
    found: dict[str, Any] = {}
    for job in chosen:
        place = made.context.job_folder(job.id)
        if again:
            shutil.rmtree(place, ignore_errors=True)
        if not (place / "status.json").exists():
            made.run(job)
    for job in chosen:
        one = record.read_job(made.context.job_folder(job.id))
        found[job.id] = {"seconds": one.status["seconds"], "measurements": one.measurements}
    return found


def trajectory(turns: Turns, suite: dict[str, Any], folder: str, mirror: str, only: Sequence[str]) -> dict[str, Any]:
    """Run training jobs and clock the evaluations of their trajectories, by split.

    Returns:
        {job id: {"training_seconds", "seconds": {"held_out", "train"}, "evaluations": {the same}}}
    """
    del turns
    made = Bench(suite, folder, mirror)
    spent: dict[str, list[float]] = {"held_out": [], "train": []}
    scores = Trainer.scores

    def clocked(self: Trainer, split: str) -> Any:
        started = time.perf_counter()
        found = scores(self, split)
        spent[split].append(time.perf_counter() - started)
        return found

    result = {}
    for start in only:
        job = made.job(start)
        made.run_needs(job)
        Trainer.scores = clocked  # type: ignore[method-assign]
        for values in spent.values():
            values.clear()
        made.run(job)
        Trainer.scores = scores  # type: ignore[method-assign]
        measured = record.read_job(made.context.job_folder(job.id)).measurements
        result[job.id] = {
            "training_seconds": measured["training_seconds"]["value"],
            "seconds": {split: sum(values) for split, values in spent.items()},
            "evaluations": {split: len(values) for split, values in spent.items()},
        }
    return result
