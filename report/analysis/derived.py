"""Figures of one run that other figures give: gaps in shares, cost a step and a token, distance at equal tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from report.analysis import tradeoff
from report.analysis.load import OBJECTIVES, Measured, Results, Run, missing

_POINTS_TO_INTERPOLATE = 3


def combine(function: Callable[..., Any], *parts: Measured, undefined: str = "the baseline's figure is 0") -> Measured:
    """Derive a figure; what is missing in a part is the reason why the whole is, `undefined` where the result is NaN."""
    reasons = dict.fromkeys(part.reason for part in parts if part.value is None)
    if reasons:
        return missing("; ".join(reasons))
    value = float(function(*(part.number for part in parts)))
    if math.isnan(value):
        return missing(undefined)
    return Measured(value, shared=any(part.shared for part in parts))


def start(results: Results, objective: str) -> Measured:
    """Return f(θ_1): an objective's value before any step, which all runs of a suite share (a new adapter changes nothing)."""
    name = f"f_{objective}/{results.split}"
    for run in results.trained:
        point = run.at(0)
        if point is not None and point.get(name) is not None:
            return Measured(float(point[name]))
    return missing(f"no run has {name} at step 0 on record")


def equal_tokens(runs: Iterable[Run]) -> Measured:
    """Return the gradient tokens that every one of these runs reached: the smallest of their ends."""
    ends = [run.trajectory[-1].get("tokens") for run in runs if run.trains and run.trajectory]
    known = [float(end) for end in ends if end is not None]
    return Measured(min(known)) if known else missing("no trajectory tells its tokens")


def at_tokens(run: Run, name: str, tokens: Measured) -> Measured:
    """Return an objective of a run after so many gradient tokens, between two points of its trajectory."""
    if not run.trains:
        return missing(f"{run.id} took no steps of its own")
    if tokens.value is None:
        return missing(tokens.reason)
    points = [point for point in run.trajectory if point.get(name) is not None and point.get("tokens") is not None]
    if len(points) < _POINTS_TO_INTERPOLATE:
        return missing(f"{run.id} has fewer than {_POINTS_TO_INTERPOLATE} points with {name} and tokens")
    value = tradeoff.value_at([point["tokens"] for point in points], [point[name] for point in points], tokens.value)
    return missing(f"{run.id} has no point at {tokens.value:g} tokens") if math.isnan(value) else Measured(value)


def figures(results: Results, run: Run, made: dict[str, Measured], tokens: Measured) -> dict[str, Measured]:
    """Derive them from a run's figures so far.

    Returns:
        relative_gap_dpo, relative_gap_sft, relative_ideal_distance: gaps in shares of f(θ_1) − f*.
        ideal_distance_at_equal_tokens: in nats, after as many gradient tokens as every run of the suite reached.
        seconds_per_step, seconds_per_token, joules_per_token: training seconds and joules by steps and gradient tokens.
        matrix_rate_share: model FLOPs a second of training, as a share of what the device's matrix products reach; where they
            were counted.
    """
    found, at = {}, []
    for name in OBJECTIVES:
        optimum = results.optimum(name, run.seed)
        found[f"relative_gap_{name}"] = combine(
            tradeoff.relative_gap,
            made[f"gap_{name}"],
            start(results, name),
            optimum,
            undefined=f"training on {name.upper()} alone gained nothing",
        )
        value = at_tokens(run, f"f_{name}/{results.split}", tokens)
        at.append(combine(tradeoff.optimality_gap, value, optimum))
    found["relative_ideal_distance"] = combine(
        tradeoff.ideal_distance, *(found[f"relative_gap_{name}"] for name in OBJECTIVES)
    )
    found["ideal_distance_at_equal_tokens"] = combine(tradeoff.ideal_distance, *at)
    for name, total, count in (
        ("seconds_per_step", "training_seconds", "steps"),
        ("seconds_per_token", "training_seconds", "tokens"),
        ("joules_per_token", "energy_joules", "tokens"),
    ):
        found[name] = combine(
            _ratio, run.measurement(total), made.get(count, run.measurement(count)), undefined=f"it took no {count}"
        )
    if "model_flops" in run.job.measurements:
        parts = (run.measurement(name) for name in ("model_flops", "training_seconds", "matrix_flops_per_second"))
        found["matrix_rate_share"] = combine(_share_of_rate, *parts, undefined="it took no time")
    return found | choices(run, made["steps"])


def choices(run: Run, steps: Measured) -> dict[str, Measured]:
    """Return what a run chose, where it is on record: an older record counts none of this, a method without gaps has none.

    Returns:
        dpo_step_share: of all steps; one of Mix counts. distinct_rows_dpo, distinct_rows_sft: different rows in a gradient.
        negative_gap_share_dpo, negative_gap_share_sft: of the gaps that the steps were chosen on.
    """
    found = {}
    if "steps_on/dpo" in run.job.measurements:
        found["dpo_step_share"] = combine(_ratio, run.measurement("steps_on/dpo"), steps, undefined="it took no steps")
    for name in OBJECTIVES:
        if f"gaps/{name}" in run.job.measurements:
            counts = run.measurement(f"negative_gaps/{name}"), run.measurement(f"gaps/{name}")
            found[f"negative_gap_share_{name}"] = combine(_ratio, *counts, undefined="it saw no gaps")
        if f"distinct_rows/{name}" in run.job.measurements:
            found[f"distinct_rows_{name}"] = run.measurement(f"distinct_rows/{name}")
    return found


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan


def _share_of_rate(flops: float, seconds: float, rate: float) -> float:
    return flops / seconds / rate if seconds and rate else math.nan
