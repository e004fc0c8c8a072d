"""Every recipe against every other over the same seeds, with what all of them together say of how much a seed changes.

With three seeds a paired t-test has two degrees of freedom and sees little; four recipes have six together. So each recipe's
spread about what it and its seed would be expected to give (the residuals of recipe + seed) is drawn towards the recipes'
common one, by as much as the spreads agree: variances moderated by empirical Bayes (Smyth 2004). Recipes that spread alike
share their degrees of freedom; one that spreads more keeps its own. Of two recipes it is the paired t-test. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from report.analysis.statistics import Estimate, estimate, normal

Floats = NDArray[np.float64]
PAIRED = 0.2
_ROUNDS = 50


@dataclass(frozen=True)
class Spreads:
    """Say how much each recipe's figure changes with the seed.

    Attributes:
        variances: of one seed, moderated; shape [recipes].
        degrees: of freedom of each; infinite where all recipes are taken to spread alike, up to what they have together.
        together: the degrees that all recipes have.
    """

    variances: Floats
    degrees: float
    together: float


def spreads(values: Floats) -> Spreads:
    """Estimate the spreads of recipes, shape [recipes, seeds], at least two of each."""
    recipes, seeds = values.shape
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    own_degrees, together = (seeds - 1) * (recipes - 1) / recipes, float((seeds - 1) * (recipes - 1))
    variances = (residuals**2).sum(axis=1) / own_degrees
    if recipes == 2 or not np.all(variances > 0):
        return Spreads(np.full(recipes, variances.mean()), together, together)
    prior, prior_degrees = _prior(variances, own_degrees)
    if math.isinf(prior_degrees):
        return Spreads(np.full(recipes, variances.mean()), together, together)
    moderated = (prior_degrees * prior + own_degrees * variances) / (prior_degrees + own_degrees)
    return Spreads(moderated, min(prior_degrees + own_degrees, together), together)


def _prior(variances: Floats, degrees: float) -> tuple[float, float]:
    """Fit the distribution that variances come from, prior · F(degrees, prior degrees), by the moments of their logarithms."""
    from scipy.special import digamma, polygamma

    logs = np.log(variances) - digamma(degrees / 2) + math.log(degrees / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, degrees / 2))
    if excess <= 0:
        return float(variances.mean()), math.inf
    prior_degrees = 2 * _inverse_trigamma(excess)
    prior = math.exp(float(logs.mean()) + float(digamma(prior_degrees / 2)) - math.log(prior_degrees / 2))
    return prior, prior_degrees


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value by Newton's method on its reciprocal, which is nearly a line."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(_ROUNDS):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x


@dataclass(frozen=True)
class Together:
    """Hold what all recipes of a suite say together.

    Attributes:
        places: what tells a recipe apart -> its row.
        values: shape [recipes, seeds].
    """

    places: Mapping[Any, int]
    values: Floats
    spreads: Spreads


@dataclass(frozen=True)
class Difference:
    """One recipe's mean less another's.

    Attributes:
        size: with its 95 % interval, of the test that is surer.
        p_above, p_below: one-sided, against "no higher" and "no lower".
    """

    size: Estimate
    p_above: float
    p_below: float

    @property
    def p_value(self) -> float:
        """The two-sided p-value against "no difference"."""
        return min(1.0, 2 * min(self.p_above, self.p_below))


def difference(values: Floats, spread: Spreads, one: int, other: int) -> Difference:
    """Compare two of all recipes, shape of `values` [recipes, seeds].

    Two recipes whose difference hardly changes with the seed, beside others that are all over the place, are told apart by
    themselves: both tests are made, this paired one at `PAIRED` of the level and that of all recipes at the rest of it.
    """
    together, alone = _by_all(values, spread, one, other), estimate(list(values[one] - values[other]))
    if len(values) == 2 or not alone.has_interval:
        return Difference(together, together.p_above, together.p_below)
    tests = ((1 - PAIRED, together), (PAIRED, alone))
    above = min(min(1.0, test.p_above / part) for part, test in tests)
    below = min(min(1.0, test.p_below / part) for part, test in tests)
    surer = min(tests, key=lambda one: one[1].p_value / one[0])[1]
    return Difference(surer, above, below)


def _by_all(values: Floats, spread: Spreads, one: int, other: int) -> Estimate:
    seeds = values.shape[1]
    apart = values[one] - values[other]
    first, second = (float(spread.variances[place]) for place in (one, other))
    error = math.sqrt((first + second) / seeds)
    # Welch: of two alike each with d degrees it is 2 d, and never more than all recipes have together
    alike = (first + second) ** 2 / (first**2 + second**2) if error else 1.0
    degrees = min(spread.degrees * alike, spread.together)
    return normal(float(apart.mean()), error, degrees, seeds, float(apart.std(ddof=1)))
