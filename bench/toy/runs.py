"""The methods on softmax policies of a few parameters, in double precision: Figure 2, Theorems 3.1 and 4.1.

The loop is the language models' in small: `choose`, update, `observe`, with the same method objects. Here an objective has
one example, so its value is exact and a gradient is the full gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add, mul
from pathlib import Path
from typing import Any

from bench.methods import METHODS, Gradients, Method, Objective, Phase, Setup, choices
from bench.records import record
from bench.records.metrics import Metric
from bench.records.softmax_pair import Parameters, SoftmaxPair
from bench.suite.toy import Problem


def reference(problem: Problem, learning_rate: float, weight_decay: float) -> Parameters:
    """Return θ_ref: given, or trained by SFT on the chosen answer from the start (Eq. 34)."""
    if problem.reference.parameters is not None:
        return problem.reference.parameters
    # −log π_θ(y_w|x_1) is f_SFT with the preference pair's features in place of the instruction's.
    given = problem.features
    chosen = given.model_copy(update={"target": given.chosen, "other": given.rejected})
    pair = SoftmaxPair(dict(chosen), problem.beta, problem.start)
    theta = list(problem.start)
    for _ in range(problem.reference.steps or 0):
        _, gradient = pair.value_and_gradient(Objective.SFT, theta)
        theta = _descend(theta, gradient, learning_rate, weight_decay)
    return tuple(theta)


def _descend(theta: Sequence[float], gradient: Sequence[float], rate: float, decay: float) -> list[float]:
    return [a - rate * (g + decay * a) for a, g in zip(theta, gradient, strict=True)]


def length(settings: Mapping[str, Any]) -> int:
    """Return the steps of one run: those of the phases that its method declares."""
    return sum(phase.steps for phase in _phases(settings))


def _phases(settings: Mapping[str, Any]) -> tuple[Phase, ...]:
    kind = METHODS[settings["method"]]
    return kind.phases(_setup(settings, seed=0), kind.Options.model_validate(settings["options"]))


def _setup(settings: Mapping[str, Any], seed: int) -> Setup:
    phase_steps = {Objective(name): steps for name, steps in settings["phases"]}
    first, second = phase_steps
    optimum = {objective: float(settings["problem"]["optimum"][objective]) for objective in Objective}
    return Setup(settings["lambda_dpo"], settings["steps"], seed, phase_steps, (first, second), optimum)


def _weighted(
    pair: SoftmaxPair, weights: Mapping[Objective, float], theta: Sequence[float]
) -> tuple[dict[Objective, float], list[float]]:
    """Return the values of the weighted objectives and the weighted sum of their gradients."""
    losses: dict[Objective, float] = {}
    total: list[float] = []
    for objective, weight in weights.items():
        losses[objective], gradient = pair.value_and_gradient(objective, theta)
        if weight != 1.0:
            gradient = [weight * entry for entry in gradient]
        total = list(map(add, total, gradient)) if total else gradient
    return losses, total


@dataclass(frozen=True)
class _Probe:
    """Be what a method may look at before it chooses a step: objectives and gradients at θ, which are exact here."""

    pair: SoftmaxPair
    theta: Sequence[float]

    def __call__(self, objective: Objective) -> float:
        return self.pair.value(objective, self.theta)

    def gradients(self) -> Gradients:
        found = {objective: self.pair.value_and_gradient(objective, self.theta) for objective in Objective}
        dpo, sft = (found[objective][1] for objective in (Objective.DPO, Objective.SFT))
        norms = {Objective.DPO: math.hypot(*dpo), Objective.SFT: math.hypot(*sft)}
        return Gradients(
            math.fsum(map(mul, dpo, sft)), norms, {objective: value for objective, (value, _) in found.items()}
        )


METRICS = tuple(
    Metric(
        f"f_{objective}",
        f"f_{objective.upper()}",
        "nats",
        "lower",
        "objective",
        f"the {objective.upper()} objective at the end of a run",
        low=0.0,
        gate=True,
        tolerance=0.01,
        relative=True,
    )
    for objective in Objective
)


@dataclass
class Descent:
    """One run: where it ended, the thinned path there, its updates, and in how many each objective had a part."""

    theta: Sequence[float]
    path: list[dict[str, Any]] = field(default_factory=list)
    updates: int = 0
    taken: dict[Objective, int] = field(default_factory=lambda: dict.fromkeys(Objective, 0))


def descend(pair: SoftmaxPair, method: Method, settings: dict[str, Any], points: int) -> Descent:
    """Run a method from the start; `settings` are those of a job, `points` about how many rows of its path are kept.

    A phase's steps after its objective has come down to the threshold are not taken.
    """
    rate, decay, threshold = settings["learning_rate"], settings["weight_decay"], settings["threshold"]
    phases = _phases(settings)
    steps = length(settings)
    run = Descent(list(settings["problem"]["start"]))
    every = max(1, steps // points) if points else steps
    phase = 0

    def keep() -> None:
        values = {f"f_{objective}": pair.value(objective, run.theta) for objective in Objective}
        run.path.append({"step": run.updates, "phase": phase, "theta": list(run.theta), **values})

    for step in range(1, steps + 1):
        choice = method.choose(step, _Probe(pair, run.theta))
        choices.check(settings["method"], choice, step, phases)
        if points and (step % every == 1 or every == 1 or choice.phase != phase):
            keep()
        phase = choice.phase
        losses, gradient = _weighted(pair, choice.weights, run.theta)
        if threshold is not None and max(losses.values()) <= threshold:
            continue
        run.theta = _descend(run.theta, gradient, rate, decay)
        run.updates += 1
        for objective in losses:
            run.taken[objective] += 1
        method.observe(losses)
    if points:
        keep()
        run.path = [row for place, row in enumerate(run.path) if place == 0 or row != run.path[place - 1]]
    return run


def work(settings: dict[str, Any], folder: Path) -> None:
    """Do a toy job: every seed's run, the first one's path, and their means.

    Writes problem.json (θ_ref), trajectory.jsonl (seed 0), samples.jsonl (a row a seed), scores.json, measurements.json.
    """
    problem = Problem.model_validate(settings["problem"])
    theta_ref = reference(problem, settings["reference_learning_rate"], settings["weight_decay"])
    pair = SoftmaxPair(dict(problem.features), problem.beta, theta_ref)
    kind = METHODS[settings["method"]]
    options = kind.Options.model_validate(settings["options"])
    rows: list[dict[str, Any]] = []
    path: list[dict[str, Any]] = []
    started = time.perf_counter()
    for seed in range(settings["seeds"]):
        method = kind(_setup(settings, seed), options)
        run = descend(pair, method, settings, settings["points"] if seed == 0 else 0)
        values = {f"f_{objective}": pair.value(objective, run.theta) for objective in Objective}
        taken = {str(objective): count for objective, count in run.taken.items()}
        rows.append({"seed": seed, "theta": list(run.theta), **values, "steps": taken})
        path = path or run.path
    seconds = time.perf_counter() - started
    record.write_json(folder / "problem.json", {"theta_ref": list(theta_ref)})
    for name, kept in (("trajectory", path), ("samples", rows)):
        (folder / f"{name}.jsonl").unlink(missing_ok=True)
        record.append_jsonl(folder / f"{name}.jsonl", kept)
    names = [f"f_{objective}" for objective in Objective]
    record.write_json(folder / "scores.json", {name: mean_of([row[name] for row in rows]) for name in names})
    measurements = {
        f"steps/{objective}": record.measured(math.fsum(row["steps"][objective] for row in rows) / len(rows), "steps")
        for objective in Objective
    }
    measurements["training_seconds"] = record.measured(round(seconds, 6), "s")
    record.write_json(folder / "measurements.json", measurements)
    record.write_metrics(folder, METRICS)


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, n and the mean's standard error; one value has none."""
    count = len(values)
    mean = math.fsum(values) / count
    error = None
    if count > 1:
        error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return {"value": mean, "n": count, "standard_error": error}
