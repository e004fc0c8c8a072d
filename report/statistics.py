"""How sure a figure is, over seeds. Pure functions.

With the few seeds that training allows, intervals are Student's t on per-seed values: a percentile bootstrap of three
values covers about 75 % where 95 % is asked for. Fewer than three seeds give no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95
SEEDS_FOR_AN_INTERVAL = 3


@dataclass(frozen=True)
class Estimate:
    """Hold a mean over seeds.

    Attributes:
        mean: NaN when n = 0.
        sd: sample standard deviation (n − 1 in the denominator); NaN when n < 2.
        low, high: two-sided 95 % Student-t interval of the mean; NaN when n < 3.
        n: number of seeds.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether there were seeds enough for an interval."""
        return not math.isnan(self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0; False without an interval."""
        return self.has_interval and (self.low > 0 or self.high < 0)

    @property
    def reach(self) -> float:
        """The largest absolute value inside the interval: how big the difference could still be."""
        return max(abs(self.low), abs(self.high))


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, spread and Student-t interval of per-seed values; NaN values (not measured) are left out.

    The interval is mean ± t(0.975, n − 1) · sd / √n (Student 1908): right for independent seeds with roughly
    normal values.
    """
    known = [float(value) for value in values if not math.isnan(value)]
    n, nan = len(known), math.nan
    if n == 0:
        return Estimate(nan, nan, nan, nan, 0)
    mean = math.fsum(known) / n
    if n == 1:
        return Estimate(mean, nan, nan, nan, 1)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    if n < SEEDS_FOR_AN_INTERVAL:
        return Estimate(mean, sd, nan, nan, n)
    half = t_quantile(0.5 + LEVEL / 2, n - 1) * sd / math.sqrt(n)
    return Estimate(mean, sd, mean - half, mean + half, n)


@cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return Student's t quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """Estimate a − b over the seeds that both have, seed by seed.

    Pairing takes out what a seed does to both sides: its data order, adapter initialization and optimum.

    Args:
        a, b: seed -> value; a seed that is missing or NaN on either side is left out.
    """
    return estimate([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])
