"""How sure a figure is, over seeds. Pure functions.

With the few seeds that training allows, intervals are Student's t on per-seed values; from ten seeds on they are a
studentized bootstrap, which bends with the values where they are skewed. A percentile bootstrap of three values covers about
75 % where 95 % is asked for, and one of ten still only 90 %. Fewer than three seeds give no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
SEEDS_FOR_AN_INTERVAL = 3
SEEDS_FOR_A_BOOTSTRAP = 10
RESAMPLES = 4999
_SEED = 20241015

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a difference of two.

    Attributes:
        mean: NaN when n = 0.
        sd: sample standard deviation (n − 1 in the denominator); NaN when n < 2.
        low, high: two-sided 95 % interval of the mean; NaN when n < 3.
        n: number of seeds.
        error: standard error of the mean; NaN when n < 2.
        degrees: degrees of freedom of `error`; NaN when n < 3.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int
    error: float = math.nan
    degrees: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether there were seeds enough for an interval."""
        return not math.isnan(self.low)

    @property
    def negated(self) -> Estimate:
        """The difference the other way round."""
        return replace(self, mean=-self.mean, low=-self.high, high=-self.low)

    def inside(self, least: float, most: float) -> Estimate:
        """Return the estimate with its interval cut to where the value can lie; tests are as before."""
        if not self.has_interval:
            return self
        return replace(self, low=max(self.low, min(least, self.mean)), high=min(self.high, max(most, self.mean)))

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0; False without an interval."""
        return self.has_interval and (self.low > 0 or self.high < 0)

    @property
    def reach(self) -> float:
        """The largest absolute value inside the interval: how big the difference could still be."""
        return max(abs(self.low), abs(self.high))

    @property
    def p_above(self) -> float:
        """The one-sided p-value against "the mean is 0 or less" (Student's t); NaN without an interval."""
        return _tail(self.mean, self.error, self.degrees)

    @property
    def p_below(self) -> float:
        """The one-sided p-value against "the mean is 0 or more"."""
        return _tail(-self.mean, self.error, self.degrees)

    @property
    def p_value(self) -> float:
        """The two-sided p-value against "the mean is 0"."""
        return min(1.0, 2 * min(self.p_above, self.p_below)) if self.has_interval else math.nan


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, spread and interval of per-seed values; NaN values (not measured) are left out.

    Below ten seeds the interval is mean ± t(0.975, n − 1) · sd / √n (Student 1908): right for independent seeds with
    roughly normal values. From ten on it is a studentized bootstrap (Efron and Tibshirani 1993, chapter 12).
    """
    known = [float(value) for value in values if not math.isnan(value)]
    n, nan = len(known), math.nan
    if n == 0:
        return Estimate(nan, nan, nan, nan, 0)
    mean = math.fsum(known) / n
    if n == 1:
        return Estimate(mean, nan, nan, nan, 1)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    error = sd / math.sqrt(n)
    if n < SEEDS_FOR_AN_INTERVAL:
        return Estimate(mean, sd, nan, nan, n, error)
    if n >= SEEDS_FOR_A_BOOTSTRAP:
        low, high = bootstrap_interval(tuple(known))
        return Estimate(mean, sd, low, high, n, error, n - 1)
    return normal(mean, error, n - 1, n, sd)


def normal(mean: float, error: float, degrees: float, n: int, sd: float = math.nan) -> Estimate:
    """Return an estimate with its Student-t interval: mean ± t(0.975, degrees) · error."""
    half = t_quantile(0.5 + LEVEL / 2, degrees) * error
    return Estimate(mean, sd, mean - half, mean + half, n, error, degrees)


@cache
def t_quantile(probability: float, degrees: float) -> float:
    """Return Student's t quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def _tail(mean: float, error: float, degrees: float) -> float:
    """Return P(T ≥ mean / error); equal values on every seed have no error, and are taken at their word."""
    if math.isnan(degrees):
        return math.nan
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    from scipy.special import stdtr

    return float(stdtr(degrees, -mean / error))


# ---- bootstrap -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _counts(n: int) -> Floats:
    """Draw how often each of n values is in each resample, (RESAMPLES, n): always the same ones."""
    return np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


@lru_cache(maxsize=4096)
def bootstrap_interval(values: tuple[float, ...]) -> tuple[float, float]:
    """Return the studentized bootstrap's 95 % interval of a mean (Efron and Tibshirani 1993, Section 12.5).

    t* = (mean* − mean) / error* of each resample takes the place of Student's t, so that skewed values get an interval
    that reaches further on their long side. Where nearly all values are the same, many resamples hold one value only and
    tell no error: then it is Student's t. The resamples are seeded: equal values give equal intervals.
    """
    sample = np.asarray(values, dtype=np.float64)
    n, mean = len(sample), float(sample.mean())
    centred = sample - mean
    error = float(centred.std(ddof=1)) / math.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    shift = _counts(n) @ centred / n
    variance = (_counts(n) @ centred**2 / n - shift**2) * n / (n - 1)
    spread = variance > 1e-9 * error**2 * n
    if spread.mean() < 0.99:
        half = t_quantile(0.5 + LEVEL / 2, n - 1) * error
        return mean - half, mean + half
    studentized = shift[spread] / np.sqrt(variance[spread] / n)
    low, high = np.quantile(studentized, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return mean - float(high) * error, mean - float(low) * error


# ---- two sides -------------------------------------------------------------------------------------------------------


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """Estimate a − b over the seeds that both have, seed by seed.

    Pairing takes out what a seed does to both sides: its data order, adapter initialization and optimum.

    Args:
        a, b: seed -> value; a seed that is missing or NaN on either side is left out.
    """
    return estimate([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])


def independent(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Estimate mean(a) − mean(b) of two sets of seeds that are not the same (Welch 1947); n is the smaller set's size.

    NaN values are left out; fewer than three seeds on either side give no interval.
    """
    ours, theirs = estimate(a), estimate(b)
    n, mean = min(ours.n, theirs.n), ours.mean - theirs.mean
    if n < SEEDS_FOR_AN_INTERVAL:
        return Estimate(mean, math.nan, math.nan, math.nan, n)
    first, second = ours.error**2, theirs.error**2
    return normal(mean, math.sqrt(first + second), welch_degrees((first, ours.n - 1), (second, theirs.n - 1)), n)


def pooled(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Estimate mean(a) − mean(b) as `independent` does, with one variance for both sides (Student 1908).

    This is the test of "nothing changed", under which both sides spread alike: it has all n_a + n_b − 2 degrees of freedom.
    """
    ours, theirs = estimate(a), estimate(b)
    n, mean = min(ours.n, theirs.n), ours.mean - theirs.mean
    if n < SEEDS_FOR_AN_INTERVAL:
        return Estimate(mean, math.nan, math.nan, math.nan, n)
    degrees = ours.n + theirs.n - 2
    variance = ((ours.n - 1) * ours.sd**2 + (theirs.n - 1) * theirs.sd**2) / degrees
    return normal(mean, math.sqrt(variance * (1 / ours.n + 1 / theirs.n)), degrees, n)


def welch_degrees(*parts: tuple[float, float]) -> float:
    """Return the degrees of freedom of a sum of variances (Satterthwaite 1946), from (variance, degrees) of each."""
    below = math.fsum(variance**2 / degrees for variance, degrees in parts)
    total = math.fsum(variance for variance, _ in parts)
    return total**2 / below if below > 0 else min(degrees for _, degrees in parts)


# ---- several comparisons ---------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being this many (Holm 1979): sorted, times n, n − 1, …, never falling, at most 1.

    The chance that any comparison without a difference ends at or below a level stays at most that level, however the
    comparisons hang together. NaN (no test) stays NaN and does not count.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[place] = largest
    return corrected
