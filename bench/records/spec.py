"""What a job is: everything a worker needs to run it, and what spec.json says of it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

WITH_ADAPTER = ("train", "recipe", "adopt")
# What `training.devices` is of: training, and passes over training rows with its policies.
ON_SEVERAL_DEVICES = ("train", "cost", "reference_logps", "row_optimum")
# Kinds of jobs and what they are called; beside them stand those of the evaluators' stages.
KINDS = {
    "pretrain": "pre-training",
    "train": "training",
    "recipe": "made by recipes",
    "adopt": "taken over from another suite",
    "reference_logps": "reference log-probabilities",
    "row_optimum": "the optima's losses row by row",
    "toy": "toy runs",
    "cost": "costs measured alone",
}


@dataclass(frozen=True)
class Prefix:
    """Say whose checkpoint a run may start from instead of training its first phase again."""

    job: str
    step: int


@dataclass(frozen=True)
class RunLabels:
    """Say who a run is: what trains or makes its policy, at which λ and seed.

    Attributes:
        method: as it is shown.
        base_method: its name in the table of methods or recipes.
        lambda_dpo: λ; None where it plays no part.
        order: of Sequential's two phases, sft_dpo or dpo_sft.
        phase_steps: how the steps are split between the objectives; None for a policy that takes none.
        options: the method's own.
    """

    method: str
    base_method: str
    lambda_dpo: float | None
    seed: int
    order: str
    phase_steps: Mapping[str, int] | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ToyLabels:
    """Say who the runs of a toy job are: a method at one λ and length, over so many seeds."""

    method: str
    base_method: str
    lambda_dpo: float
    steps: int
    seeds: int
    options: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class PolicyLabels:
    """Say whose policy a job looks at.

    Attributes:
        of: the job that made it, or base.
        more: what else sets the job apart, such as its judge.
    """

    of: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return {"of": self.of, **self.more}


Labels = RunLabels | ToyLabels | PolicyLabels


@dataclass(frozen=True)
class Inputs:
    """Name the jobs that a job reads from.

    Attributes:
        pretrained: made the base model.
        policy: made the policy that is looked at; None is the base model.
        reference: made π_ref.
        reference_logps: holds π_ref's log-probabilities.
        optimum: the run of each objective alone, by objective.
        row_optimum: the optima's log-probabilities of every training row, by objective.
        front: runs whose ends are points of the reference front.
        stages: earlier stages of the same evaluator, by name.
    """

    pretrained: str | None = None
    policy: str | None = None
    reference: str | None = None
    reference_logps: str | None = None
    optimum: Mapping[str, str] = field(default_factory=dict)
    row_optimum: Mapping[str, str] = field(default_factory=dict)
    front: tuple[str, ...] = ()
    stages: Mapping[str, str] = field(default_factory=dict)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs alone, as `as_dict` has them; a front of thousands is not named anew for each job that has it."""
        single = (self.pretrained, self.policy, self.reference, self.reference_logps)
        return (
            *(job for job in single if job),
            *self.optimum.values(),
            *self.row_optimum.values(),
            *self.front,
            *self.stages.values(),
        )

    def as_dict(self) -> dict[str, str]:
        """Return name -> job as in spec.json; what is not read is left out."""
        single = {name: getattr(self, name) for name in ("pretrained", "policy", "reference", "reference_logps")}
        return {
            **{name: job for name, job in single.items() if job},
            **{f"optimum_{objective}": job for objective, job in self.optimum.items()},
            **{f"row_optimum_{objective}": job for objective, job in self.row_optimum.items()},
            **{f"front_{place}": job for place, job in enumerate(self.front, 1)},
            **self.stages,
        }


@dataclass(frozen=True)
class Resources:
    """Say what a job takes of a machine while it runs. No part of what makes a job: its numbers do not depend on it.

    Attributes:
        devices: GPUs that it computes on at once; where there are none, as many shares of the processors.
        processors: that it computes with besides; None: as many as a job has threads.
        memory_bytes: of the machine, at least; None: not known.
    """

    devices: int = 1
    processors: int | None = None
    memory_bytes: int | None = None

    @property
    def network_only(self) -> bool:
        """Whether it takes nothing but a network or a disk, and can wait beside whatever computes."""
        return self.devices == 0 and self.processors == 0


NETWORK_ONLY = Resources(devices=0, processors=0)


@dataclass(frozen=True)
class JobSpec:
    """Describe one job: everything a worker needs to run it.

    Attributes:
        plugins: whose code decides its numbers besides ours: distribution, version and source hash of each.
        resources: what it takes of the machine that it runs on.
        stage: the name of the evaluator's stage that it is; "" for one that is none.
    """

    id: str
    kind: str
    labels: Labels | None
    settings: dict[str, Any]
    inputs: Inputs
    data: dict[str, str]
    roles: tuple[str, ...] = ()
    prefix: Prefix | None = None
    keep_steps: tuple[int, ...] = ()
    steps: int = 0
    tokens: int = 0
    plugins: tuple[Mapping[str, str], ...] = ()
    resources: Resources = Resources()
    stage: str = ""

    @property
    def run_labels(self) -> RunLabels:
        """Who it is, of a job that trains or makes a policy."""
        assert isinstance(self.labels, RunLabels), self.kind
        return self.labels

    @property
    def needs(self) -> tuple[str, ...]:
        """The jobs that must be complete before this one starts."""
        return (*self.inputs.jobs, *((self.prefix.job,) if self.prefix else ()))

    @property
    def alone(self) -> bool:
        """Whether nothing else may run on the machine beside it: what it measures is what it takes."""
        return self.kind == "cost"

    @property
    def needs_weights_of(self) -> tuple[str, ...]:
        """The jobs whose weights this one loads."""
        inputs = self.inputs
        of_recipe = (*inputs.optimum.values(), inputs.reference) if self.kind == "recipe" else ()
        return tuple(job for job in (inputs.policy, inputs.pretrained, *of_recipe) if job)

    @property
    def steps_to_run(self) -> int:
        return self.steps - (self.prefix.step if self.prefix else 0)
