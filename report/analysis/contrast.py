"""One metric of some recipes on two sides: the difference, and how sure it is over seeds and questions.

Both sides may have run the same seeds or other ones. Where they share at least three, the interval pairs them. With so few
seeds pairing costs half of the degrees of freedom and gains only if a seed moves both sides alike, which nobody knows
beforehand: so both are tested, the unpaired one at `UNPAIRED` of the level and the paired one at the rest of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.records.metrics import Metric
from report.analysis import items
from report.analysis.checkpoints import Answers
from report.analysis.outcomes import Question
from report.analysis.sides import Key, Side
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate, estimate, independent, paired, pooled

Floats = NDArray[np.float64]
LinedUp: TypeAlias = "tuple[Mapping[int, Floats], Mapping[int, Floats], Sequence[str]]"
"""seed -> value on each question of base and candidate, and the subject of each question."""

UNPAIRED = 0.8
_ROUNDING = 1e-9  # another processor may round the last digits otherwise


@dataclass(frozen=True)
class Contrast:
    """Candidate − base.

    Attributes:
        base, candidate: each side's mean over its own seeds.
        difference: with its interval; NaN bounds with fewer than three seeds.
        p_above, p_below: one-sided, against "no higher" and "no lower"; NaN without an interval.
        seeds: (shared, base's, candidate's).
        identical: every seed is on both sides, with the same value but for rounding.
        how: what the interval counts, in words.
    """

    base: Estimate
    candidate: Estimate
    difference: Estimate
    p_above: float
    p_below: float
    seeds: tuple[int, int, int]
    identical: bool
    how: str


def contrast(
    base: Mapping[int, float],
    candidate: Mapping[int, float],
    answers: LinedUp | None = None,
    alike: bool = True,
    metric: Metric | None = None,
) -> Contrast:
    """Compare two sides seed by seed.

    Args:
        base, candidate: seed -> value; NaN is left out.
        answers: seed -> value on each question of both sides, and the subject of each question; makes the
            interval count questions as well.
        alike: test "nothing changed", under which both sides spread alike; False: only that their means are equal.
        metric: what is compared; intervals end where its values, and their differences, do.
    """
    a = {seed: value for seed, value in candidate.items() if not math.isnan(value)}
    b = {seed: value for seed, value in base.items() if not math.isnan(value)}
    shared = sorted(a.keys() & b.keys())
    with_pairs, without, together = _estimates(a, b, shared, answers)
    shown = with_pairs if with_pairs.has_interval or not without.has_interval else without
    tests = [(1 - UNPAIRED, with_pairs), (UNPAIRED, together if alike else without)]
    tests = [(part, one) for part, one in tests if one.has_interval]
    whole = math.fsum(part for part, _ in tests)
    above, below = (
        min((min(1.0, p * whole / part) for part, p in ps), default=math.nan)
        for ps in ([(part, one.p_above) for part, one in tests], [(part, one.p_below) for part, one in tests])
    )
    identical = (
        a.keys() == b.keys() and bool(a) and all(math.isclose(a[seed], b[seed], rel_tol=_ROUNDING) for seed in shared)
    )
    kind = f"paired over {len(shared)} seeds" if shown is with_pairs else f"{len(a)} against {len(b)} other seeds"
    how = kind + (" and the questions" if answers is not None else "")
    seeds = (len(shared), len(b), len(a))
    (low, high), reach = (metric.range, metric.reach) if metric else ((-math.inf, math.inf), math.inf)
    return Contrast(
        estimate(list(b.values())).inside(low, high),
        estimate(list(a.values())).inside(low, high),
        shown.inside(-reach, reach),
        above,
        below,
        seeds,
        identical,
        how,
    )


def _estimates(
    a: Mapping[int, float],
    b: Mapping[int, float],
    shared: Sequence[int],
    answers: LinedUp | None,
) -> tuple[Estimate, Estimate, Estimate]:
    """Return the paired estimate, the unpaired one, and the latter with one variance for both sides."""
    if answers is None:
        ours_alone, theirs_alone = list(a.values()), list(b.values())
        return paired(a, b), independent(ours_alone, theirs_alone), pooled(ours_alone, theirs_alone)
    theirs, ours, subjects = answers
    none = Estimate(math.nan, math.nan, math.nan, math.nan, len(shared))
    differences = [ours[seed] - theirs[seed] for seed in shared]
    with_pairs = items.crossed(differences, subjects) if shared else none
    first, second = [ours[seed] for seed in a], [theirs[seed] for seed in b]
    return (
        with_pairs,
        items.crossed_apart(first, second, subjects),
        items.crossed_apart(first, second, subjects, pool=True),
    )


# ---- several recipes as one ------------------------------------------------------------------------------------------


def of_metric(base: Side, candidate: Side, keys: Sequence[Key], metric: str) -> Contrast:
    """Compare the mean of a metric over recipes, seed by seed; a seed counts if each of them was measured with it."""
    sides = [_mean([side.entries[key].values.get(metric, {}) for key in keys]) for side in (base, candidate)]
    described = (base if metric in base.metrics else candidate).metric(metric)
    return contrast(sides[0], sides[1], _answers(base, candidate, keys, metric, sides), metric=described)


def _mean(values: Sequence[Mapping[int, float]]) -> dict[int, float]:
    shared = set.intersection(*(set(one) for one in values))
    return {seed: math.fsum(one[seed] for one in values) / len(values) for seed in sorted(shared)}


def _answers(
    base: Side, candidate: Side, keys: Sequence[Key], metric: str, sides: Sequence[Mapping[int, float]]
) -> LinedUp | None:
    return line_up([[side.answers(key, metric) for key in keys] for side in (base, candidate)], sides)


def line_up(found: Sequence[Sequence[Mapping[int, Answers]]], sides: Sequence[Mapping[int, float]]) -> LinedUp | None:
    """Line both sides' answers up by question; None where any is missing or the questions are not the same.

    Args:
        found: for each side, of each recipe on it, seed -> answers.
        sides: for each side, seed -> score; NaN where not measured.
    """
    first = next((one for of_recipe in found[0] for one in of_recipe.values() if one), None)
    if first is None:
        return None
    questions = first.questions
    made: list[dict[int, Floats]] = []
    for of_side, values in zip(found, sides, strict=True):
        lined = {seed: _lined([of_recipe.get(seed) for of_recipe in of_side], questions) for seed in values}
        made.append({seed: one for seed, one in lined.items() if one is not None})
        if len(made[-1]) != sum(not math.isnan(value) for value in values.values()):
            return None
    return made[0], made[1], [subject for subject, _ in questions]


def _lined(answers: Sequence[Answers | None], questions: tuple[Question, ...]) -> Floats | None:
    """Return the mean over recipes on each question; None where one is missing or was asked other questions."""
    rows = [one.values for one in answers if one and one.questions == questions]
    return np.mean(rows, axis=0) if len(rows) == len(answers) else None


def of_front(base: Side, candidate: Side, methods: Sequence[Sequence[Key]]) -> Contrast | None:
    """Compare the share of the base's box that fronts over λ dominate, mean over methods; None where there is no front."""
    corner = base.box
    if corner is None or not corner.area > 0:
        return None
    sides = []
    for side in (base, candidate):
        shares = []
        for keys in methods:
            columns = [[side.entries[key].values[name] for name in side.objectives] for key in keys]
            shared = set.intersection(*(set(values) for of_recipe in columns for values in of_recipe))
            ends = {seed: np.array([[one[seed] for one in of_recipe] for of_recipe in columns]) for seed in shared}
            shares.append({seed: corner.share(points) for seed, points in ends.items()})
        sides.append(_mean(shares))
    return contrast(sides[0], sides[1])


def enough(made: Contrast, seeds: int) -> bool:
    """Say whether either the shared seeds or both sides' own are enough for a verdict."""
    shared, of_base, of_candidate = made.seeds
    return max(shared, min(of_base, of_candidate)) >= max(seeds, SEEDS_FOR_AN_INTERVAL)
