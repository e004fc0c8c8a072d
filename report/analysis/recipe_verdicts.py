"""Which recipes are better or worse than the matching Sequential one: over seeds, corrected for how many are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from bench.records.metrics import Metric
from report.analysis import pairwise
from report.analysis.checkpoints import Answers, answers
from report.analysis.contrast import Contrast, contrast, enough, line_up
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, holm
from report.analysis.tables import RecipeResults, Tables

BETTER, WORSE, SAME, FEW = "better", "worse", "no difference seen", "not enough data"
DIFFERENT = "different"  # of a figure of which neither direction is better


def compare(tables: Tables, recipe: RecipeResults, other: RecipeResults, metric: str) -> Contrast:
    """Compare two recipes of a suite over seeds, and over questions or pairs where single answers are kept."""
    sides = [one.values(metric) for one in (other, recipe)]
    found: list[list[dict[int, Answers]]] = [[], []]
    if metric in tables.scores:
        found = [
            [{seed: answers(tables.results, job, metric) for seed, job in one.jobs.items()}] for one in (other, recipe)
        ]
    return contrast(sides[0], sides[1], line_up(found, sides), alike=False, metric=tables.metric(metric))


def distance(tables: Tables, recipe: RecipeResults, other: RecipeResults) -> pairwise.Difference:
    """Estimate a recipe's ideal distance minus another's, with what all ranked recipes say of the spread over seeds."""
    together = tables.distances_together(recipe, other)
    if together is not None and recipe.key in together.places and other.key in together.places:
        places = together.places[recipe.key], together.places[other.key]
        return pairwise.difference(together.values, together.spreads, *places)
    alone = tables.difference(recipe, other, tables.distance)
    return pairwise.Difference(alone, alone.p_above, alone.p_below)


def frame(tables: Tables, metrics: Iterable[str] = ()) -> pd.DataFrame:
    """One row a recipe and metric: its difference to the Sequential recipe of the same λ, and the verdict.

    Args:
        metrics: which figures; the ideal distance on held-out rows and all scores when left out.

    Returns:
        Columns method, lambda_dpo, metric, difference, low, high, seeds, p_holm (two-sided, corrected over the rows of the same
        metric), verdict and could_be (the largest difference inside the interval, for "no difference seen").
    """
    names = tuple(metrics) or (tables.distance, *tables.scores)
    rows: list[dict[str, object]] = []
    made: list[Contrast] = []
    for recipe in tables.recipes:
        other = tables.sequential(recipe.lambda_dpo)
        if other is None or other is recipe:
            continue
        for name in names:
            one = compare(tables, recipe, other, name)
            if name == tables.distance:
                one = _by_distance(tables, recipe, other, one)
            made.append(one)
            row: dict[str, object] = {"method": recipe.method, "lambda_dpo": recipe.lambda_dpo, "metric": name}
            row |= {"difference": one.difference.mean, "low": one.difference.low, "high": one.difference.high}
            rows.append(row | {"seeds": one.seeds[0]})
    corrected = [math.nan] * len(made)
    for name in names:  # a family is one figure's comparisons: what is asked of it is asked of no other
        places = [place for place, row in enumerate(rows) if row["metric"] == name]
        for place, p in zip(places, holm([two_sided(made[place]) for place in places]), strict=True):
            corrected[place] = p
    for row, one, p in zip(rows, made, corrected, strict=True):
        row |= {"p_holm": p, "verdict": _verdict(one, p, tables.metric(str(row["metric"])))}
        row["could_be"] = one.difference.reach if row["verdict"] == SAME else math.nan
    return pd.DataFrame(rows)


def _by_distance(tables: Tables, recipe: RecipeResults, other: RecipeResults, one: Contrast) -> Contrast:
    """Put the test of the ideal distance in a contrast's place: the one that the ranking goes by."""
    made = distance(tables, recipe, other)
    size = made.size
    if not size.has_interval:
        return one
    return replace(one, difference=size, p_above=made.p_above, p_below=made.p_below, seeds=(size.n, size.n, size.n))


def two_sided(one: Contrast) -> float:
    """Return the p-value against "no difference"; NaN without an interval."""
    return min(1.0, 2 * min(one.p_above, one.p_below)) if one.difference.has_interval else math.nan


def _verdict(one: Contrast, p_value: float, metric: Metric) -> str:
    if not enough(one, SEEDS_FOR_AN_INTERVAL):
        return FEW
    if one.identical or p_value > 0.05:
        return SAME
    if metric.better is None:
        return DIFFERENT
    return BETTER if (one.difference.mean > 0) == (metric.better == "higher") else WORSE
