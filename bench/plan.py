"""What is to be done: jobs keyed by a content hash, in an order in which they can run. `planner.py` makes the plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from bench.suite import Experiment

WITH_ADAPTER = ("train", "recipe", "adopt")


@dataclass(frozen=True)
class Prefix:
    """Say whose checkpoint a run may start from instead of training its first phase again."""

    job: str
    step: int


@dataclass(frozen=True)
class PlannedJob:
    """Describe one job: everything a worker needs to run it."""

    id: str
    kind: str
    labels: dict[str, Any]
    settings: dict[str, Any]
    inputs: dict[str, str]
    data: dict[str, str]
    roles: tuple[str, ...] = ()
    prefix: Prefix | None = None
    keep_steps: tuple[int, ...] = ()
    steps: int = 0
    tokens: int = 0

    @property
    def needs(self) -> tuple[str, ...]:
        """The jobs that must be complete before this one starts."""
        return (*self.inputs.values(), *((self.prefix.job,) if self.prefix else ()))

    @property
    def needs_weights_of(self) -> tuple[str, ...]:
        """The jobs whose weights this one loads."""
        of_recipe = ("optimum_dpo", "optimum_sft", "reference") if self.kind == "recipe" else ()
        names = ("policy", "pretrained", *of_recipe)
        return tuple(job for name, job in self.inputs.items() if name in names)

    @property
    def steps_to_run(self) -> int:
        return self.steps - (self.prefix.step if self.prefix else 0)


@dataclass
class Plan:
    """Hold the jobs of a suite in an order in which they can run."""

    suite: Experiment
    jobs: dict[str, PlannedJob] = field(default_factory=dict)

    @property
    def optimizer_steps(self) -> int:
        """Steps the plan takes."""
        return sum(job.steps_to_run for job in self.jobs.values())

    @property
    def unshared_steps(self) -> int:
        """Steps of the same jobs if each role were trained for itself: a shared job counts once per role."""
        return sum(job.steps * max(1, len(job.roles)) for job in self.jobs.values())

    def with_role(self, role: str, seed: int | None = None) -> PlannedJob | None:
        for job in self.jobs.values():
            if role in job.roles and (seed is None or job.labels["seed"] == seed):
                return job
        return None

    def add(self, job: PlannedJob) -> PlannedJob:
        """Add a job, or the roles of an equal one."""
        known = self.jobs.get(job.id)
        if known:
            job = replace(known, roles=tuple(dict.fromkeys((*known.roles, *job.roles))))
        self.jobs[job.id] = job
        return job

    def keep(self, job_id: str, step: int) -> None:
        """Ask a job to keep its checkpoint at a step."""
        job = self.jobs[job_id]
        self.jobs[job_id] = replace(job, keep_steps=tuple(sorted({*job.keep_steps, step})))
