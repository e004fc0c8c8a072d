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

from bench import record
from bench.methods import METHODS, Method, Objective, Setup
from bench.toy_suite import Problem

Parameters = tuple[float, ...]


def _minus(left: Sequence[float], right: Sequence[float]) -> Parameters:
    return tuple(a - b for a, b in zip(left, right, strict=True))


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the inner product."""
    return float(sum(map(mul, left, right)))


def _logistic_loss(margin: float) -> tuple[float, float]:
    """Return −log σ(m) and 1 − σ(m), without overflow on either side."""
    small = math.exp(-abs(margin))
    return max(-margin, 0.0) + math.log1p(small), (small if margin > 0 else 1.0) / (1.0 + small)


class SoftmaxPair:
    """Hold both objectives of softmax policies π_θ(y|x) ∝ exp(θ·φ_{y,x}) over two answers an input.

    Attributes:
        directions: φ_chosen − φ_rejected and φ_target − φ_other: each objective falls along its own.
        theta_ref: parameters of π_ref.
    """

    def __init__(self, problem: Problem, theta_ref: Sequence[float]) -> None:
        features = problem.features
        self.directions = {
            Objective.DPO: _minus(features.chosen, features.rejected),
            Objective.SFT: _minus(features.target, features.other),
        }
        self.theta_ref = tuple(theta_ref)
        # Eq. 22: h = β (θ − θ_ref)·Δφ; for SFT, log π(y)/π(y') = θ·Δφ. Both losses are −log σ of these margins.
        self._scale = {Objective.DPO: problem.beta, Objective.SFT: 1.0}
        self._offset = {
            Objective.DPO: problem.beta * dot(self.theta_ref, self.directions[Objective.DPO]),
            Objective.SFT: 0.0,
        }

    def margin(self, objective: Objective, theta: Sequence[float]) -> float:
        """Return h_β (Eq. 22), or the log-odds of the target answer."""
        return self._scale[objective] * dot(theta, self.directions[objective]) - self._offset[objective]

    def value(self, objective: Objective, theta: Sequence[float]) -> float:
        """Return f_DPO (Eq. 1) or f_SFT (Eq. 4), in nats."""
        return _logistic_loss(self.margin(objective, theta))[0]

    def value_and_gradient(self, objective: Objective, theta: Sequence[float]) -> tuple[float, list[float]]:
        """Return an objective with its gradient: −β (1 − σ(h)) Δφ (Eq. 23), or −(φ_y − φ̄) = −(1 − π(y)) Δφ (Eq. 27)."""
        direction, scale = self.directions[objective], self._scale[objective]
        value, slope = _logistic_loss(scale * dot(theta, direction) - self._offset[objective])
        return value, [-scale * slope * entry for entry in direction]

    @property
    def inner_product(self) -> float:
        """The inner product of both directions; negative: descending one objective raises the other, anywhere."""
        return dot(self.directions[Objective.DPO], self.directions[Objective.SFT])

    def mixture(self, lambda_dpo: float, theta: Sequence[float]) -> float:
        """Return λ f_DPO + (1 − λ) f_SFT."""
        return lambda_dpo * self.value(Objective.DPO, theta) + (1 - lambda_dpo) * self.value(Objective.SFT, theta)

    def mixture_minimum(self, lambda_dpo: float, start: Sequence[float]) -> tuple[float, Parameters | None]:
        """Return min f_Mix,λ and the minimizer nearest to `start`.

        Unless both directions are opposite, some direction lowers both objectives for ever: the infimum is 0 and nothing
        attains it (None). Otherwise f_Mix is a convex function of the place along that one direction, and its derivative's
        only root is found by bisection to the last bit.
        """
        dpo, sft = self.directions[Objective.DPO], self.directions[Objective.SFT]
        opposite = self.inner_product <= -(1 - 1e-12) * math.sqrt(dot(dpo, dpo) * dot(sft, sft))
        if not opposite or not 0 < lambda_dpo < 1:
            return 0.0, None

        def at(place: float) -> Parameters:
            return tuple(a + place * b for a, b in zip(start, sft, strict=True))

        def slope(place: float) -> float:
            parts = [self.value_and_gradient(objective, at(place))[1] for objective in (Objective.DPO, Objective.SFT)]
            return dot([lambda_dpo * a + (1 - lambda_dpo) * b for a, b in zip(*parts, strict=True)], sft)

        low, high = -1.0, 1.0
        while slope(low) > 0:
            low *= 2
        while slope(high) < 0:
            high *= 2
        while low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        return self.mixture(lambda_dpo, at(low)), at(low)


def reference(problem: Problem, learning_rate: float, weight_decay: float) -> Parameters:
    """Return θ_ref: given, or trained by SFT on the chosen answer from the start (Eq. 34)."""
    if problem.reference.parameters is not None:
        return problem.reference.parameters
    # −log π_θ(y_w|x_1) is f_SFT with the preference pair's features in place of the instruction's.
    chosen = problem.features.model_copy(update={"target": problem.features.chosen, "other": problem.features.rejected})
    pair = SoftmaxPair(problem.model_copy(update={"features": chosen}), problem.start)
    theta = list(problem.start)
    for _ in range(problem.reference.steps or 0):
        _, gradient = pair.value_and_gradient(Objective.SFT, theta)
        theta = _descend(theta, gradient, learning_rate, weight_decay)
    return tuple(theta)


def _descend(theta: Sequence[float], gradient: Sequence[float], rate: float, decay: float) -> list[float]:
    return [a - rate * (g + decay * a) for a, g in zip(theta, gradient, strict=True)]


def length(settings: Mapping[str, Any]) -> int:
    """Return the steps of one run: T, or both phases of Sequential."""
    if settings["method"] == "sequential":
        return sum(int(steps) for _, steps in settings["phases"])
    return int(settings["steps"])


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


@dataclass
class Run:
    """Hold one run: where it ended, the thinned path there, its updates, and in how many each objective had a part."""

    theta: Sequence[float]
    path: list[dict[str, Any]] = field(default_factory=list)
    updates: int = 0
    taken: dict[Objective, int] = field(default_factory=lambda: dict.fromkeys(Objective, 0))


def descend(pair: SoftmaxPair, method: Method, settings: dict[str, Any], points: int) -> Run:
    """Run a method from the start; `settings` are those of a job, `points` about how many rows of its path are kept.

    A phase's steps after its objective has come down to the threshold are not taken.
    """
    rate, decay, threshold = settings["learning_rate"], settings["weight_decay"], settings["threshold"]
    steps = length(settings)
    run = Run(list(settings["problem"]["start"]))
    every = max(1, steps // points) if points else steps
    phase = 0

    def keep() -> None:
        values = {f"f_{objective}": pair.value(objective, run.theta) for objective in Objective}
        run.path.append({"step": run.updates, "phase": phase, "theta": list(run.theta), **values})

    def probe(objective: Objective) -> float:
        return pair.value(objective, run.theta)

    for step in range(1, steps + 1):
        choice = method.choose(step, probe)
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
    pair = SoftmaxPair(problem, theta_ref)
    kind = METHODS[settings["method"]]
    options = kind.Options.model_validate(settings["options"])
    optimum = {objective: float(getattr(problem.optimum, objective)) for objective in Objective}
    phase_steps = {Objective(name): steps for name, steps in settings["phases"]}
    first, second = phase_steps
    rows: list[dict[str, Any]] = []
    path: list[dict[str, Any]] = []
    started = time.perf_counter()
    for seed in range(settings["seeds"]):
        setup = Setup(settings["lambda_dpo"], settings["steps"], seed, phase_steps, (first, second), optimum)
        run = descend(pair, kind(setup, options), settings, settings["points"] if seed == 0 else 0)
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


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, n and the mean's standard error; one value has none."""
    count = len(values)
    mean = math.fsum(values) / count
    error = None
    if count > 1:
        error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return {"value": mean, "n": count, "standard_error": error}
