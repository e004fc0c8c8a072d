"""What a job reads from the jobs before it: π_ref's log-probabilities, f*, what a stopping rule compares with, a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import DamagedInput, ModelError
from bench.methods import METHODS, Objective, Target
from bench.records import record, seal
from bench.records.optimum import cross_fitted
from bench.records.spec import JobSpec
from bench.run.context import WorkerContext
from bench.suite.suite import Suite
from bench.train.stopping import Rule, targets


def check(job: JobSpec, context: WorkerContext) -> None:
    """See that what a job reads from others is what they wrote.

    Raises:
        DamagedInput: it is not; the job that wrote it has to be run anew.
    """
    for needed in dict.fromkeys(job.needs):
        found = seal.examine(context.job_folder(needed), weights=True, thorough=False)
        if isinstance(found, seal.Damage):
            raise DamagedInput(needed, found.what)


def reference_logps(job: JobSpec, context: WorkerContext) -> Any:
    """Read π_ref's log-probabilities by split; None where the job was planned without."""
    source = job.inputs.reference_logps
    return record.read_json(context.job_folder(source) / "reference_logps.json") if source else None


def optimum(job: JobSpec, context: WorkerContext) -> dict[Objective, float]:
    """Read f* on training rows, where MAXRIGHT's rule compares it with training batches."""
    sources = job.inputs.optimum.items()
    return {Objective(name): _optimum(context.job_folder(source), name, "train") for name, source in sources}


def _optimum(folder: Path, objective: str, split: str) -> float:
    """Read f* of a split: the best that the run on one objective alone reached on it."""
    name = f"f_{objective}/{split}"
    found = cross_fitted(list(record.read_jsonl(folder / "trajectory.jsonl")), name)
    if found is None:
        raise ModelError(f"{folder}: its trajectory has no {name}; delete the folder to make it again")
    return found.value


def row_optimum(job: JobSpec, context: WorkerContext) -> dict[Objective, Any]:
    """Read the optima's log-probabilities of every training row, for paired gaps."""
    return {
        Objective(objective): record.read_json(context.job_folder(source) / "row_logps.json")["logps"]
        for objective, source in job.inputs.row_optimum.items()
    }


def rule(job: JobSpec, context: WorkerContext) -> Rule | None:
    """Put a run's stopping rule together from numbers in the suite, or from the ends of the runs it is compared with."""
    settings = job.settings.get("stopping")
    if settings is None:
        return None
    logps, inputs = reference_logps(job, context), job.inputs
    compared = (*inputs.front, *inputs.optimum.values())
    ends = {one: _end(context.job_folder(one), context.suite, logps) for one in compared}
    optimum, front = {}, {}
    held_against = targets(settings["rule"], METHODS[job.run_labels.base_method])
    if Target.OPTIMUM in held_against:
        split = context.suite.primary_split
        optimum = {one: _optimum(context.job_folder(inputs.optimum[one]), one, split) for one in Objective}
    if settings["front"]:
        points = (dict(zip((Objective.DPO, Objective.SFT), point, strict=True)) for point in settings["front"])
        front = {f"point {place}": point for place, point in enumerate(points, 1)}
    elif Target.FRONT in held_against:
        front = ends
    return Rule(settings["threshold"], optimum, front)


def _end(folder: Path, suite: Suite, reference: Any) -> dict[Objective, float]:
    """Read the objective values a run ended at, on the evaluation split."""
    rows = list(record.read_jsonl(folder / "trajectory.jsonl"))[-1:]
    logps = [row for row in record.read_jsonl(folder / "evaluation_logps.jsonl") if row["step"] == rows[0]["step"]]
    (last,) = record.complete_trajectory(rows, logps, reference, suite.objectives.beta)
    return {objective: float(last[f"f_{objective}/{suite.primary_split}"]) for objective in Objective}


def adopted(job: JobSpec, folder: Path) -> Path:
    """Find the job of another suite whose policy a suite takes over, beside the suite's own folder of results.

    Raises:
        ModelError: it is not there, not complete, without weights, damaged, or made of another base model.
    """
    suite, _, job_id = job.run_labels.method.partition("/")
    key, source = f"reference.policy = {suite}/{job_id}", folder.parent / suite / "jobs" / job_id
    found = record.read_job(source) if (source / "spec.json").exists() else None
    if found is None or not found.complete:
        raise ModelError(f"{key}: no complete job in {source}; run that suite first")
    if not seal.weights_in(source):
        raise ModelError(f"{key}: {source} holds records without weights; run that suite again")
    damage = seal.examine(source, weights=True, thorough=False)
    if isinstance(damage, seal.Damage):
        raise ModelError(f"{key}: {source}: {damage.what}")
    if found.spec["settings"].get("model") != job.settings["model"]:
        raise ModelError(f"{key}: it was trained on another base model than this suite's")
    return source
