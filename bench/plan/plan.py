"""What is to be done: jobs keyed by a content hash, in an order in which they can run. `planner.py` makes the plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bench.errors import InputError
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
            self._refuse_two_labels(known, job)
            job = replace(known, roles=tuple(dict.fromkeys((*known.roles, *job.roles))))
        self.jobs[job.id] = job
        return job

    @staticmethod
    def _refuse_two_labels(known: JobSpec, job: JobSpec) -> None:
        """Refuse the same run under two labels: it would be made once, and be told of once."""
        if "run" in known.roles and "run" in job.roles and known.labels != job.labels:
            names = " and ".join(repr(one.run_labels.method) for one in (known, job))
            raise InputError(
                f"methods: {names} are the same run ({job.id}) under two labels; take one out, or change a setting"
            )

    def keep(self, job_id: str, step: int) -> None:
        """Ask a job to keep its checkpoint at a step."""
        job = self.jobs[job_id]
        self.jobs[job_id] = replace(job, keep_steps=tuple(sorted({*job.keep_steps, step})))
