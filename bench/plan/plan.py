"""What is to be done: jobs keyed by a content hash, in an order in which they can run. `planner.py` makes the plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bench.records.spec import JobSpec
from bench.suite.suite import Experiment


@dataclass
class Plan:
    """The jobs of a suite in an order in which they can run."""

    suite: Experiment
    jobs: dict[str, JobSpec] = field(default_factory=dict)

    @property
    def optimizer_steps(self) -> int:
        """Steps the plan takes."""
        return sum(job.steps_to_run for job in self.jobs.values())

    @property
    def unshared_steps(self) -> int:
        """Steps of the same jobs if each role were trained for itself: a shared job counts once per role."""
        return sum(job.steps * max(1, len(job.roles)) for job in self.jobs.values())

    def with_role(self, role: str, seed: int | None = None) -> JobSpec | None:
        for job in self.jobs.values():
            if role in job.roles and (seed is None or job.run_labels.seed == seed):
                return job
        return None

    def add(self, job: JobSpec) -> JobSpec:
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
