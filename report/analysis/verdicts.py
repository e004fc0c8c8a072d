"""Better, worse, same or unclear: what is said of two policies in one figure, from one place for all that name the pair.

A pair that stands in the table against Sequential keeps the corrected p-value of that table, a pair in the figure that ranks
the test of the ranking; every other pair is compared over seeds, and over questions where single answers are on record.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from report.analysis import recipe_verdicts
from report.analysis.contrast import Contrast, enough
from report.analysis.gate import Amount
from report.analysis.ranking import LEVEL, Ranking
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate, estimate
from report.analysis.tables import RecipeKey, RecipeResults, Tables, rounded

BETTER, WORSE, SAME, UNCLEAR = "better", "worse", "same", "unclear"
_TURNED = {BETTER: WORSE, WORSE: BETTER}


def within(size: Estimate, tolerated: float) -> bool:
    """Whether all of a difference's 95 % interval is too small to count: what *same* means, in reports and `bench compare`."""
    return tolerated > 0 and size.has_interval and size.reach <= tolerated


@dataclass(frozen=True)
class Between:
    """One policy against another in a figure.

    Attributes:
        word: of the first against the second: better, worse, same (the 95 % interval lies inside the figure's tolerance, or
            every seed is the same) or unclear (no difference seen, or too few seeds to see one).
        size: the first less the second, on the scale on which the figure compares.
        p: two-sided, corrected where the pair is one of several that are asked the same; NaN without a test.
    """

    word: str
    size: Estimate
    p: float

    @property
    def turned(self) -> Between:
        """The second against the first."""
        return Between(_TURNED.get(self.word, self.word), self.size.negated, self.p)


class Verdicts:
    """Compare a suite's policies, each pair and figure once."""

    def __init__(self, tables: Tables, ranking: Ranking) -> None:
        self.tables, self.ranking = tables, ranking
        self._found: dict[tuple[RecipeKey, RecipeKey, str], Between] = {}

    def between(self, one: RecipeResults, other: RecipeResults, name: str) -> Between:
        """Say how `one` stands against `other` in a figure."""
        key = one.key, other.key, name
        if key not in self._found:
            made = self._between(one, other, name)
            self._found[key], self._found[other.key, one.key, name] = made, made.turned
        return self._found[key]

    def _between(self, one: RecipeResults, other: RecipeResults, name: str) -> Between:
        if one.key == other.key:
            return Between(SAME, Estimate(0.0, 0.0, 0.0, 0.0, len(one.jobs)), math.nan)
        if not (one.estimate(name).n and other.estimate(name).n):
            return Between(UNCLEAR, estimate([]), math.nan)
        compared = recipe_verdicts.compare(self.tables, one, other, name)
        matched = self.ranking.table.find(one, other, name)
        if matched is not None:
            p, size = matched.p, matched.size
        elif name == self.figure_that_ranks and self.ranking.holds(one) and self.ranking.holds(other):
            gap = self.ranking.gap(one, other)
            p, size = gap.p, gap.size if self._higher(name) else gap.size.negated
        else:
            p, size = recipe_verdicts.two_sided(compared), compared.difference
        return Between(self._word(compared, other, name, p, size), size, p)

    @property
    def figure_that_ranks(self) -> str:
        """The figure that ranks, or would."""
        return self.ranking.basis or self.tables.distance

    def _word(self, compared: Contrast, other: RecipeResults, name: str, p: float, size: Estimate) -> str:
        metric, better = self.tables.metric(name), self._better(name)
        if not enough(compared, SEEDS_FOR_AN_INTERVAL):
            return UNCLEAR
        if compared.identical:
            return SAME
        apart = name != self.tables.distance or rounded(size.mean) != 0
        if p <= LEVEL and better is not None and apart:
            return BETTER if (size.mean > 0) == self._higher(name) else WORSE
        tolerated = Amount(value=metric.tolerance, relative=metric.relative).of(other.estimate(name).mean, metric)
        return SAME if within(size, tolerated) else UNCLEAR

    def _better(self, name: str) -> str | None:
        """Which direction is better; tokens are paid for, though a count on record."""
        return "lower" if name == "tokens" else self.tables.metric(name).better

    def _higher(self, name: str) -> bool:
        return self._better(name) == "higher"
