"""What a job is: everything a worker needs to run it, and what spec.json says of it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WITH_ADAPTER = ("train", "recipe", "adopt")
# Kinds of jobs and what they are called; beside them stand those of the evaluators' stages.
KINDS = {
    "pretrain": "pre-training",
    "train": "training",
    "recipe": "made by recipes",
    "adopt": "taken over from another suite",
    "reference_logps": "reference log-probabilities",
    "row_optimum": "the optima's losses row by row",
    "toy": "toy runs",
}


@dataclass(frozen=True)
class Prefix:
    """Say whose checkpoint a run may start from instead of training its first phase again."""

    job: str
    step: int


@dataclass(frozen=True)
class JobSpec:
    """Describe one job: everything a worker needs to run it.

    Attributes:
        plugins: whose code decides its numbers besides ours: distribution, version and source hash of each.
    """

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
    plugins: tuple[Mapping[str, str], ...] = ()

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
