"""Who is ahead of whom, by the figure that can carry it: one place for headline, leaderboard, tables and `--choose`.

The figure is the ideal distance where both optima hold on every seed, else the first score with a better direction; either
needs three seeds of each recipe. A recipe is ahead of another where the test of the two says so; recipes that are not told
apart share a rank. See docs/decisions/ranking.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from report.analysis import recipe_verdicts
from report.analysis.matched import AgainstSequential
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate, t_quantile
from report.analysis.tables import RecipeKey, RecipeResults, Tables, rounded

LEVEL = 0.05
# More seeds than anybody trains: said as "more than" this.
MOST_SEEDS = 100


@dataclass(frozen=True)
class Gap:
    """How much better one recipe is than another by the figure that ranks.

    Attributes:
        size: positive where the first is better; in the figure's unit.
        p: two-sided; corrected where the pair stands in the table against Sequential; NaN without a test.
        comparisons: how many it is corrected for.
    """

    size: Estimate
    p: float
    comparisons: int = 1

    @property
    def clear(self) -> bool:
        """Whether the first is ahead."""
        return self.size.n >= SEEDS_FOR_AN_INTERVAL and self.p <= LEVEL and rounded(self.size.mean) > 0


class Ranking:
    """Rank a suite's recipes.

    Args:
        tables: their figures.
        against: returns the table of recipes against Sequential, whose corrected p-values count here, too.
    """

    def __init__(self, tables: Tables, against: Callable[[], pd.DataFrame]) -> None:
        self.tables, self.table = tables, AgainstSequential(tables, against)
        self._gaps: dict[tuple[RecipeKey, RecipeKey], Gap] = {}

    @cached_property
    def basis(self) -> str | None:
        """The figure that ranks; None: none can."""
        return next((name for name in (self.tables.distance, *self.tables.ranking_scores) if self._carries(name)), None)

    @property
    def by_distance(self) -> bool:
        """Whether the ideal distance ranks, or at least gives the order."""
        return self.basis in (None, self.tables.distance)

    def _carries(self, name: str) -> bool:
        recipes = self._complete(name)
        return len(recipes) > 1 and min(one.estimate(name).n for one in recipes) >= SEEDS_FOR_AN_INTERVAL

    def _complete(self, name: str) -> list[RecipeResults]:
        """Return the recipes that have a figure of every seed of the suite."""
        planned = len(self.tables.results.suite.get("seeds") or ())
        return [one for one in self.tables.recipes if one.estimate(name).n >= max(1, planned or len(one.jobs))]

    @cached_property
    def order(self) -> tuple[RecipeResults, ...]:
        """The ranked recipes, best mean first; without a figure that ranks by ideal distance, for the eye alone."""
        name = self.basis or self.tables.distance
        sign = -1 if self.tables.metric(name).better == "higher" else 1
        found = self._complete(name) if self.basis else self.tables.competing
        return tuple(sorted(found, key=lambda one: sign * rounded(one.estimate(name).mean)))

    @cached_property
    def _keys(self) -> frozenset[RecipeKey]:
        return frozenset(one.key for one in self.order)

    def rank(self, recipe: RecipeResults) -> int | None:
        """Return 1 + how many are ahead of a recipe; None where nothing ranks it."""
        if self.basis is None or not self.holds(recipe):
            return None
        return 1 + sum(self.gap(other, recipe).clear for other in self.order if other.key != recipe.key)

    def place(self, recipe: RecipeResults) -> str:
        """Write a recipe's rank: 2= where another has the same one; – where nothing ranks it."""
        rank = self.rank(recipe)
        tied = rank is not None and self._shares[rank] > 1
        return "–" if rank is None else f"{rank}{'=' if tied else ''}"

    @cached_property
    def _shares(self) -> Counter[int | None]:
        """How many recipes have each rank."""
        return Counter(map(self.rank, self.order))

    def holds(self, recipe: RecipeResults) -> bool:
        """Whether a recipe is among those in order."""
        return recipe.key in self._keys

    @property
    def winner(self) -> RecipeResults | None:
        """The recipe that is ahead of every other, where the evidence carries one."""
        return self.order[0] if self.order and not self.why_no_winner else None

    @cached_property
    def why_no_winner(self) -> str:
        """Say what keeps a winner from being named; "" where there is one."""
        why = self.why_nothing_is_sure
        if why:
            return why
        if not self.order:
            return next(
                (why for one in self.tables.recipes if (why := self.tables.why_unranked(one))), "no figure ranks"
            )
        if len(self.order) < 2:
            return "no other recipe is complete to compare with"
        if self.basis is None:
            return f"the figures of {counted(self.fewest_seeds, 'seed')} cannot tell a better recipe from luck"
        level = self.level_with(self.order[0])
        return f"it is not told apart from {listed([one.name for one in level])}" if level else ""

    @cached_property
    def why_nothing_is_sure(self) -> str:
        """Say what keeps any recipe from being recommended, by whatever figure: a smoke run, too few seeds, missing runs."""
        results = self.tables.results
        if results.smoke:
            return "a smoke run measures nothing"
        if not self.tables.recipes:
            return "no run is complete"
        lost = results.unfinished_runs
        if lost:
            planned = counted(len(lost) + len(results.runs), "planned run")
            return f"{len(lost)} of {planned} {'is' if len(lost) == 1 else 'are'} missing"
        if self.fewest_seeds < SEEDS_FOR_AN_INTERVAL:
            return f"{counted(self.fewest_seeds, 'seed')} cannot tell a better recipe from luck"
        return ""

    @property
    def fewest_seeds(self) -> int:
        """The least number of seeds that a recipe was trained with."""
        return min((len(one.jobs) for one in self.tables.recipes), default=0)

    def level_with(self, recipe: RecipeResults) -> tuple[RecipeResults, ...]:
        """Return the recipes that a recipe is not ahead of; its twins are no others."""
        others = (one for one in self.order if not self.tables.same(one, recipe))
        return tuple(one for one in others if not self.gap(recipe, one).clear)

    def gap(self, one: RecipeResults, other: RecipeResults) -> Gap:
        """Return how much better `one` is than `other`."""
        key = one.key, other.key
        if key not in self._gaps:
            self._gaps[key] = made = self._gap(one, other)
            self._gaps[other.key, one.key] = Gap(made.size.negated, made.p, made.comparisons)
        return self._gaps[key]

    def _gap(self, one: RecipeResults, other: RecipeResults) -> Gap:
        name = self.basis or self.tables.distance
        if name == self.tables.distance:
            made = recipe_verdicts.distance(self.tables, other, one)
            size, p = made.size, made.p_value
        else:
            compared = recipe_verdicts.compare(self.tables, one, other, name)
            size, p = compared.difference, recipe_verdicts.two_sided(compared)
            size = size if self.tables.metric(name).better == "higher" else size.negated
        matched = self.table.find(one, other, name)
        return Gap(size, matched.p, matched.comparisons) if matched else Gap(size, p)

    def seeds_wanted(self, one: RecipeResults, other: RecipeResults) -> int | None:
        """Return how many seeds would tell two recipes apart, were their difference and its spread what they seem.

        None: with less than two seeds, or without a difference, nothing can be said; more than `MOST_SEEDS` is that plus one.
        """
        size = self.gap(one, other).size
        spread = size.error * math.sqrt(size.n) if size.n > 1 else math.nan
        if not (spread > 0 and abs(size.mean) > 0):
            return None
        return seeds_for(abs(size.mean), spread)


def counted(number: int, what: str) -> str:
    """Write a number of things: one seed, 3 seeds."""
    return f"{'one' if number == 1 else number} {what}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 1) -> str:
    """Name the first of several, and how many more there are."""
    more = len(names) - most
    return " and ".join(names[:most]) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


def seeds_for(difference: float, spread: float) -> int:
    """Return the least number of seeds whose 95 % interval of a difference leaves 0 out: t(0.975, n − 1) · spread / √n."""
    counts = range(SEEDS_FOR_AN_INTERVAL, MOST_SEEDS + 1)
    fits = (n for n in counts if t_quantile(0.975, n - 1) * spread / math.sqrt(n) <= difference)
    return next(fits, MOST_SEEDS + 1)
