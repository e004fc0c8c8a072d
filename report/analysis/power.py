"""How small a difference so many questions or prompts, and seeds, can show. Pure functions.

Two recipes are compared as the report does: paired over seeds, on the same items, with what all recipes of the suite say of
how much a seed changes (`pairwise`). The difference of one seed is a mean over items, so its variance is σ_s² + σ_e² / items:
what the seed changes by itself, and the luck of single outcomes. Seen is a difference whose two-sided p-value is at most
5 %, in 8 of 10 repetitions (Cohen 1988), by Student's t and its noncentral distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from report.analysis.pairwise import PAIRED
from report.analysis.statistics import LEVEL, SEEDS_FOR_AN_INTERVAL, t_quantile

Floats = NDArray[np.float64]

POWER = 0.8
MOST_SEEDS = 100
MOST_ITEMS = 20_000
_NORMAL_DEGREES = 1000.0  # beyond which t is normal to what is shown


@dataclass(frozen=True)
class Spread:
    """The variance of a difference between two recipes: of one item on one seed, and of a seed by itself."""

    item: float
    seed: float = 0.0

    def error(self, items: int, seeds: int) -> float:
        """Return the standard error of the difference."""
        return math.sqrt((self.seed + self.item / items) / seeds)


AT_WORST = Spread(0.5)
"""Each outcome right or wrong like a coin of its own, 2 · ½ · ½; nothing that a seed changes beyond."""


def detectable(spread: Spread, items: int, seeds: int, recipes: int) -> float:
    """Return the smallest difference that is seen, in the unit of the outcomes.

    Args:
        spread: of the difference.
        items: questions or prompts that every policy is asked.
        seeds: of each recipe; with fewer than three the report tells no recipes apart, and what is said is of the policies of
            these seeds themselves, by their items.
        recipes: of the suite, two or more; further ones say with these two how much a seed changes.
    """
    level, degrees = 1 - LEVEL, float((seeds - 1) * (recipes - 1))
    if seeds < SEEDS_FOR_AN_INTERVAL:
        degrees = float(items * seeds - 1)
    elif recipes > 2:  # the test of all recipes together has this part of the level
        level *= 1 - PAIRED
    return _noncentrality(degrees, level) * spread.error(items, seeds)


def _noncentrality(degrees: float, level: float) -> float:
    """Solve P(|t| > the critical value) = `POWER` for how many standard errors the difference is from 0."""
    from scipy.special import nctdtr, ndtri

    if degrees < 1:
        return math.inf
    if degrees > _NORMAL_DEGREES:
        return float(ndtri(1 - level / 2) + ndtri(POWER))
    critical = t_quantile(1 - level / 2, degrees)
    low, high = 0.0, 2 * critical + 10
    while high - low > 1e-6:
        middle = (low + high) / 2
        power = 1 - nctdtr(degrees, middle, critical) + nctdtr(degrees, middle, -critical)
        low, high = (middle, high) if power < POWER else (low, middle)
    return high


@dataclass(frozen=True)
class Needed:
    """How many items and seeds show a difference."""

    items: int
    seeds: int


def needed(spread: Spread, difference: float, seeds: int, recipes: int, most: int = MOST_ITEMS) -> Needed | None:
    """Return the fewest seeds, from the suite's and three on, with which few enough items do; None: too many of either.

    A recipe differs with the seed by itself: no number of items makes up for too few seeds then.

    Args:
        spread: of the difference.
        difference: to be seen.
        seeds: of the suite.
        recipes: of the suite.
        most: items that there are.
    """
    for count in range(max(seeds, SEEDS_FOR_AN_INTERVAL), MOST_SEEDS + 1):
        error = difference / detectable(Spread(1.0), 1, count, recipes) / math.sqrt(count)
        room = error**2 * count - spread.seed
        items = math.ceil(spread.item / room - 1e-9) if room > 0 else math.inf
        if items <= most:
            return Needed(max(1, int(items)), count)
    return None


def measured(outcomes: Floats) -> Spread | None:
    """Estimate the spread of differences from outcomes of some recipes on the same items and seeds.

    Of each two recipes the differences are split by seed and item (two-way analysis of variance): what is left over is
    the luck of single outcomes; what seeds vary beyond that is their own. Both are means over the pairs of recipes.

    Args:
        outcomes: shape [recipes, seeds, items].

    Returns:
        None for fewer than two recipes, seeds or items.
    """
    recipes, seeds, items = outcomes.shape
    if min(recipes, seeds, items) < 2:
        return None
    of_item, of_seed = [], []
    for one in range(recipes):
        for other in range(one):
            apart = outcomes[one] - outcomes[other]
            by_seed, by_item = apart.mean(axis=1, keepdims=True), apart.mean(axis=0, keepdims=True)
            left = apart - by_seed - by_item + apart.mean()
            luck = float((left**2).sum() / ((seeds - 1) * (items - 1)))
            of_item.append(luck)
            of_seed.append(float(by_seed.var(ddof=1)) - luck / items)
    return Spread(float(np.mean(of_item)), max(0.0, float(np.mean(of_seed))))
