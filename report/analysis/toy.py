"""Read a toy suite's records: where each run ended, its path, and how far that is from the best there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.records.metrics import Metric
from bench.records.record import Job, read_json
from bench.records.softmax_pair import SoftmaxPair
from bench.records.suite_record import SuiteRecord
from report.analysis.load import OBJECTIVES, Results
from report.analysis.load import Problem as Unfinished
from report.analysis.statistics import estimate


def is_toy(record: SuiteRecord) -> bool:
    """Say whether a suite is a toy suite."""
    return "problem" in record.info["suite"]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds; `error` is its standard error, NaN for one seed."""

    value: float
    error: float
    n: int


def mean(values: Sequence[float]) -> Mean:
    """Return the mean of values."""
    made = estimate(values)
    return Mean(made.mean, made.error, made.n)


@dataclass(frozen=True)
class ToyRun:
    """One toy job: a method at a λ and a T, over its seeds."""

    job: Job
    several_lambdas: bool

    @property
    def method(self) -> str:
        """The method's shown name."""
        return str(self.job.labels["method"])

    @property
    def base_method(self) -> str:
        """The kind of method behind the shown name."""
        return str(self.job.labels["base_method"])

    @property
    def lambda_dpo(self) -> float:
        """λ, the weight of DPO."""
        return float(self.job.labels["lambda_dpo"])

    @property
    def name(self) -> str:
        """The method's shown name, with λ where the suite has several."""
        return f"{self.method} at λ = {self.lambda_dpo:g}" if self.several_lambdas else self.method

    @property
    def steps(self) -> int:
        """T."""
        return int(self.job.labels["steps"])

    @property
    def settings(self) -> dict[str, Any]:
        """The job's resolved settings."""
        return dict(self.job.spec["settings"])

    @property
    def phases(self) -> list[tuple[str, int]]:
        """Sequential's objectives in order, with the steps each may take; for the other methods none."""
        if self.base_method != "sequential":
            return []
        return [(str(name), int(steps)) for name, steps in self.settings["phases"]]

    @cached_property
    def pair(self) -> SoftmaxPair:
        """Both objectives as the run saw them."""
        problem = self.settings["problem"]
        theta_ref = read_json(self.job.path / "problem.json")["theta_ref"]
        return SoftmaxPair(problem["features"], problem["beta"], theta_ref)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """A row a seed: where it ended."""
        return self.job.rows("samples")

    @cached_property
    def path(self) -> list[dict[str, Any]]:
        """The first seed's path, from the start to its end."""
        return self.job.rows("trajectory")

    def objective(self, name: str) -> Mean:
        """Return the final value of f_dpo or f_sft over the seeds."""
        return mean([row[name] for row in self.samples])

    def taken(self, objective: str) -> float:
        """Return the updates an objective got, mean over seeds."""
        return mean([row["steps"][objective] for row in self.samples]).value

    @property
    def ideal(self) -> tuple[float, float]:
        """f* of DPO and SFT, as the suite gives them."""
        optimum = self.settings["problem"]["optimum"]
        return float(optimum["dpo"]), float(optimum["sft"])

    @cached_property
    def distance(self) -> Mean:
        """The Euclidean distance from where the runs ended to the ideal point."""
        dpo, sft = self.ideal
        return mean([math.hypot(row["f_dpo"] - dpo, row["f_sft"] - sft) for row in self.samples])

    @cached_property
    def minimum(self) -> tuple[float, Sequence[float] | None]:
        """min f_Mix,λ, and where it is attained (None: nowhere)."""
        return self.pair.mixture_minimum(self.lambda_dpo, self.settings["problem"]["start"])

    def gap_at(self, theta: Sequence[float]) -> float:
        """Return G_Mix,λ (Eq. 6) at parameters."""
        return self.pair.mixture(self.lambda_dpo, theta) - self.minimum[0]

    @cached_property
    def gap(self) -> Mean:
        """G_Mix,λ (Eq. 6) where the runs ended."""
        return mean([self.gap_at(row["theta"]) for row in self.samples])

    def at_phase_change(self) -> dict[str, Any] | None:
        """Return the path's point between both phases of Sequential; None for the other methods."""
        if not self.phases:
            return None
        return [row for row in self.path if row["phase"] == 0][-1]


@dataclass(frozen=True)
class ToyResults:
    """A toy suite's complete runs, in the suite's order, by rising T."""

    record: SuiteRecord

    def __post_init__(self) -> None:
        self.record.check_settings()

    @property
    def suite(self) -> dict[str, Any]:
        """The suite's resolved settings."""
        return dict(self.record.info["suite"])

    @property
    def smoke(self) -> bool:
        """Whether the runs were cut short."""
        return bool(self.record.info.get("smoke"))

    @cached_property
    def runs(self) -> list[ToyRun]:
        """The complete runs."""
        several = len({job.labels["lambda_dpo"] for job in self.record.jobs.values()}) > 1
        return [ToyRun(job, several) for job in self.record.jobs.values() if job.complete]

    @cached_property
    def horizons(self) -> list[int]:
        """Every T that has a complete run."""
        return sorted({run.steps for run in self.runs})

    @cached_property
    def longest(self) -> list[ToyRun]:
        """The runs of the largest T."""
        return [run for run in self.runs if run.steps == self.horizons[-1]]

    @cached_property
    def series(self) -> dict[str, list[ToyRun]]:
        """The runs of each method (and λ) by rising T."""
        found: dict[str, list[ToyRun]] = {}
        for run in sorted(self.runs, key=lambda one: one.steps):
            found.setdefault(run.name, []).append(run)
        order = list(dict.fromkeys(run.name for run in self.runs))
        return {name: found[name] for name in order}

    def metric(self, name: str) -> Metric:
        """Return what a figure is."""
        return Results(self.record).metric(name)

    @property
    def problems(self) -> list[Unfinished]:
        """Planned jobs without a complete record."""
        return Results(self.record).problems

    @cached_property
    def inner_product(self) -> float:
        """The inner product of the features' differences, whose sign is that of the two gradients' everywhere."""
        return self.runs[0].pair.inner_product

    @cached_property
    def bounds(self) -> dict[str, list[tuple[ToyRun, float]]]:
        """Theorem 4.1's bound beside each ALRIGHT run whose step size it covers and whose mixture has a minimizer."""
        found: dict[str, list[tuple[ToyRun, float]]] = {}
        training = self.suite["training"]
        if training["schedule"] != "over_sqrt_steps" or training["weight_decay"]:
            return found
        for name, runs in self.series.items():
            if runs[0].base_method == "alright" and runs[0].minimum[1] is not None:
                found[name] = [(run, bound(run, float(training["learning_rate"]))) for run in runs]
        return found


def bound(run: ToyRun, alpha_0: float) -> float:
    """Return Theorem 4.1's bound on E[G_Mix,λ(θ_T)], corrected.

    ‖θ_1 − θ*‖² / (2 α_0 √T) + (2 + log(T − 1)) M_λ² α_0 / (2 √T): Eq. 51 with its first term as Eq. 54 gives it, and M_λ²
    = λ M_1² + (1 − λ) M_2² as Eq. 50 needs it, M_1 = 2βΦ (Eq. 24), M_2 = 2Φ (Eq. 28), Φ the longest feature vector.
    """
    problem, steps = run.settings["problem"], run.steps
    optimum = run.minimum[1]
    assert optimum is not None
    longest = max(math.hypot(*features) for features in problem["features"].values())
    squared = run.lambda_dpo * (2 * problem["beta"] * longest) ** 2 + (1 - run.lambda_dpo) * (2 * longest) ** 2
    away = math.dist(problem["start"], optimum) ** 2
    total: float = (away / alpha_0 + (2 + math.log(steps - 1)) * squared * alpha_0) / (2 * math.sqrt(steps))
    return total


def slope(steps: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of a straight line through log value over log T (least squares); NaN for fewer than two points."""
    if len(steps) < 2 or min(values) <= 0:
        return math.nan
    x, y = [math.log(one) for one in steps], [math.log(one) for one in values]
    middle_x, middle_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    above = math.fsum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    below = math.fsum((a - middle_x) ** 2 for a in x)
    return above / below


def objective_values(pair: SoftmaxPair, xs: Sequence[float], ys: Sequence[float]) -> dict[str, list[list[float]]]:
    """Return both objectives on a grid of two parameters, a row a y."""
    return {f"f_{objective}": [[pair.value(objective, (x, y)) for x in xs] for y in ys] for objective in OBJECTIVES}
