"""How often a winner is named among equal recipes, and how often one that is better is, by the report's own ranking.

python -m benchmarks --only crowning
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from bench.records.metrics import Metric
from benchmarks.rows import Context, Row, Stated
from report.analysis import recipe_verdicts
from report.analysis.load import Measured
from report.analysis.metrics import DERIVED
from report.analysis.pairwise import Together, spreads
from report.analysis.ranking import Ranking
from report.analysis.statistics import Estimate, paired
from report.analysis.tables import RecipeResults

METHODS = ("sequential", "mix", "alright", "maxright")
SUITES, OF_POWER = 2000, 500
# One seed's standard deviation is 1; all recipes of a seed move together by as much.
DIFFERENCES = (1.0, 1.5, 2.0, 3.0, 4.0)
DISTANCE = "ideal_distance"


@dataclass
class Simulated:
    """Stand for a suite's tables: recipes whose ideal distances are drawn; shape of `values` [recipes, seeds]."""

    values: np.ndarray

    distance = DISTANCE
    scores: tuple[str, ...] = ()
    ranking_scores: tuple[str, ...] = ()

    @property
    def results(self) -> Any:
        return SimpleNamespace(suite={"seeds": list(range(self.values.shape[1]))})

    def metric(self, name: str) -> Metric:
        return DERIVED[name]

    @cached_property
    def recipes(self) -> tuple[RecipeResults, ...]:
        made = []
        for place, row in enumerate(self.values):
            method, lambda_dpo = METHODS[place % len(METHODS)], (1 + place // len(METHODS)) / 10
            figures = {seed: {DISTANCE: Measured(float(value))} for seed, value in enumerate(row)}
            jobs = {seed: f"{place}-{seed}" for seed in figures}
            made.append(RecipeResults(method, method, lambda_dpo, jobs, figures, self.metric))
        return tuple(made)

    @property
    def competing(self) -> tuple[RecipeResults, ...]:
        return self.recipes

    def sequential(self, lambda_dpo: float | None) -> RecipeResults | None:
        same = (one for one in self.recipes if one.method == "sequential" and one.lambda_dpo == lambda_dpo)
        return next(same, None)

    @cached_property
    def _together(self) -> Together:
        places = {one.key: place for place, one in enumerate(self.recipes)}
        return Together(places, self.values, spreads(self.values))

    def distances_together(self, *first: RecipeResults) -> Together:
        return self._together

    def same(self, one: RecipeResults, other: RecipeResults) -> bool:
        return one.key == other.key  # what is drawn has no twins

    def difference(self, one: RecipeResults, other: RecipeResults, name: str) -> Estimate:
        return paired(one.values(name), other.values(name))


def crowned(values: np.ndarray) -> int | None:
    """Return which recipe the report would name as the winner; None: nobody."""
    tables: Any = Simulated(values)

    def against() -> pd.DataFrame:
        return recipe_verdicts.frame(tables, [DISTANCE])

    ranking = Ranking(tables, against)
    first = ranking.order[0]
    if ranking.basis is None or ranking.level_with(first):
        return None
    return [one.key for one in tables.recipes].index(first.key)


def draw(rng: np.random.Generator, recipes: int, seeds: int, better: float = 0.0) -> np.ndarray:
    """Draw distances around 10; the last recipe's are lower by `better`."""
    values: np.ndarray = 10 + rng.normal(size=(1, seeds)) + rng.normal(size=(recipes, seeds))
    values[-1] -= better
    return values


def rows(context: Context) -> Iterator[Row]:
    """Simulate suites of 4 and 12 recipes over 3 and 5 seeds."""
    suites, of_power = (300, 100) if context.quick else (SUITES, OF_POWER)
    for recipes in (4, 12):
        for seeds in (3, 5):
            rng = np.random.default_rng(recipes * 100 + seeds)
            words = f"{recipes} recipes, {seeds} seeds"
            context.say(words)
            named = sum(crowned(draw(rng, recipes, seeds)) is not None for _ in range(suites))
            bound = _upper(named, suites)
            goal = Stated("at most 5 %, upper bound at most 6 %", named / suites <= 0.05 and bound <= 0.06)
            note = f"95 % upper bound {100 * bound:.2f} %"
            yield Row(
                f"a winner among equal recipes: {words}",
                f"{suites} suites",
                [named / suites],
                unit="%",
                goal=goal,
                notes=[f"{words}: {note}."],
            )
            yield from _power(rng, recipes, seeds, of_power)


def _power(rng: np.random.Generator, recipes: int, seeds: int, suites: int) -> Iterator[Row]:
    for better in DIFFERENCES:
        found = told = 0
        for _ in range(suites):
            values = draw(rng, recipes, seeds, better)
            found += crowned(values) == recipes - 1
            told += paired(dict(enumerate(values[0])), dict(enumerate(values[-1]))).p_value <= 0.05
        goal = None
        if told >= 0.8 * suites:
            goal = Stated("at least 0.9 of the test that is told which two", found >= 0.9 * told)
        yield Row(
            f"one better by {better:g} sd is named: {recipes} recipes, {seeds} seeds",
            f"a paired t-test that is told which two to compare: {100 * told / suites:.1f} %",
            [found / suites],
            unit="%",
            goal=goal,
        )


def _upper(hits: int, draws: int) -> float:
    """Return the upper end of Clopper and Pearson's one-sided 95 % interval of a share."""
    from scipy.stats import beta

    return 1.0 if hits == draws else float(beta.ppf(0.95, hits + 1, draws - hits))
