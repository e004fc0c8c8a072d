"""What a method reaches over λ: its front in both objectives, how much it dominates, how far it is spread."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from report.analysis import tradeoff
from report.analysis.derived import start
from report.analysis.load import OBJECTIVES
from report.analysis.statistics import Estimate, estimate
from report.analysis.tables import RecipeResults, Tables

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """The corner from which area is measured and the ideal corner, (f_DPO, f_SFT) each.

    The reference is the worst of θ_1 and both optima's ends in each objective: what any run that keeps what it started
    with, and any that trains on one objective alone, reaches. It depends on no recipe that is compared.
    """

    reference: tuple[float, float]
    ideal: tuple[float, float]

    @property
    def area(self) -> float:
        """The box's area in nats²; NaN where it is unknown."""
        return math.prod(top - bottom for top, bottom in zip(self.reference, self.ideal, strict=True))

    def share(self, points: Floats) -> float:
        """Return the share of the box that points dominate: 1 for the ideal point itself, more below it."""
        if not self.area > 0 or np.isnan(points).any():
            return math.nan
        return tradeoff.hypervolume(points, self.reference) / self.area


@dataclass(frozen=True)
class Front:
    """One method's ends over λ.

    Attributes:
        points: seed -> (λ, 2) objective values (f_DPO, f_SFT) in nats; only seeds that are complete at every λ.
        hypervolume: area dominated below the reference, in nats², over seeds.
        share: that as a share of the box between reference and ideal point.
        spread: distance in nats between the ends over λ; `relative_spread` in shares of f(θ_1) − f* of each objective.
    """

    method: str
    lambdas: tuple[float, ...]
    points: dict[int, Floats] = field(repr=False)
    hypervolume: Estimate
    share: Estimate
    spread: Estimate
    relative_spread: Estimate


def box(tables: Tables) -> Box:
    """Find a suite's reference point and ideal point; NaN where nothing tells them."""
    results = tables.results
    reference, ideal = [], []
    for name in OBJECTIVES:
        column = f"f_{name}/{results.split}"
        ends = [run.objective(column).number for run in results.optima.values()]
        reference.append(_largest([start(results, name).number, *ends]))
        optima = [run.objective(column).number for (objective, _), run in results.optima.items() if objective == name]
        ideal.append(float(np.mean(optima)) if optima else math.nan)
    return Box((reference[0], reference[1]), (ideal[0], ideal[1]))


def _largest(values: list[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def by_method(tables: Tables) -> dict[str, list[RecipeResults]]:
    """Group the recipes that have a λ by their method, by rising λ."""
    found: dict[str, list[RecipeResults]] = {}
    for recipe in tables.recipes:
        if recipe.lambda_dpo is not None:
            found.setdefault(recipe.method, []).append(recipe)
    return {method: sorted(recipes, key=lambda one: one.lambda_dpo or 0.0) for method, recipes in found.items()}


def points(recipes: list[RecipeResults], split: str) -> dict[int, Floats]:
    """Return each seed's ends over λ, (λ, 2) in nats, for the seeds that have both objectives at every λ."""
    columns = [[recipe.values(f"f_{name}/{split}") for name in OBJECTIVES] for recipe in recipes]
    shared = set.intersection(*(set(values) for of_recipe in columns for values in of_recipe))
    made = {
        seed: np.array([[values[seed] for values in of_recipe] for of_recipe in columns]) for seed in sorted(shared)
    }
    return {seed: of_seed for seed, of_seed in made.items() if not np.isnan(of_seed).any()}


def fronts(tables: Tables) -> tuple[Front, ...]:
    """Measure every method's front, one a method in the suite's order; figures with their intervals over seeds."""
    corner = box(tables)
    gains = np.array(
        [start(tables.results, name).number - corner.ideal[place] for place, name in enumerate(OBJECTIVES)]
    )
    gains[~(gains > 0)] = math.nan
    made = []
    for method, recipes in by_method(tables).items():
        found = points(recipes, tables.results.split)
        areas = [tradeoff.hypervolume(one, corner.reference) for one in found.values()]
        made.append(
            Front(
                method,
                tuple(recipe.lambda_dpo for recipe in recipes if recipe.lambda_dpo is not None),
                found,
                _size(areas if not any(map(math.isnan, corner.reference)) else []),
                _size([corner.share(one) for one in found.values()]),
                _size([tradeoff.spread(one) for one in found.values()]),
                _size([tradeoff.spread(one / gains) for one in found.values()]),
            )
        )
    return tuple(made)


def _size(values: list[float]) -> Estimate:
    """Estimate an area or a distance, which cannot be negative."""
    return estimate(values).inside(0.0, math.inf)


def frame(tables: Tables) -> pd.DataFrame:
    """One row a method: hypervolume, its share of the box, spread; each with mean, low and high."""
    rows = []
    for front in fronts(tables):
        row: dict[str, object] = {"method": front.method, "lambdas": len(front.lambdas), "seeds": len(front.points)}
        for name in ("hypervolume", "share", "spread", "relative_spread"):
            one: Estimate = getattr(front, name)
            row |= {name: one.mean, f"{name}_low": one.low, f"{name}_high": one.high}
        rows.append(row)
    return pd.DataFrame(rows)


def dominance(tables: Tables) -> pd.DataFrame:
    """One row a recipe: whether its mean point is on the front of all recipes, what dominates it, and in how many seeds.

    Columns: method, lambda_dpo, on_front, dominated_by (names), seeds_on_front, seeds (complete for every recipe).
    """
    recipes = [one for one in tables.recipes if one.estimate(f"f_dpo/{tables.results.split}").n]
    if not recipes:
        return pd.DataFrame()
    columns = [f"f_{name}/{tables.results.split}" for name in OBJECTIVES]
    means = np.array([[recipe.estimate(column).mean for column in columns] for recipe in recipes])
    by_seed = points(recipes, tables.results.split)
    on_front, seeds_on = set(tradeoff.pareto_front(means)), [tradeoff.pareto_front(one) for one in by_seed.values()]
    return pd.DataFrame(
        {
            "method": recipe.method,
            "lambda_dpo": recipe.lambda_dpo,
            "on_front": place in on_front,
            "dominated_by": [
                other.name for at, other in enumerate(recipes) if tradeoff.dominates(means[at], means[place])
            ],
            "seeds_on_front": sum(place in of_seed for of_seed in seeds_on),
            "seeds": len(by_seed),
        }
        for place, recipe in enumerate(recipes)
    )
