"""Compare sides in turn, pair by pair, and fit how a cost grows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spread:
    """What repeated measurements came to."""

    minimum: float
    median: float
    maximum: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Summarize repeated measurements; at least one is needed."""
    return Spread(min(values), statistics.median(values), max(values), len(values))


def alternate(sides: Mapping[str, Callable[[], Result]], rounds: int, warm_up: int = 1) -> dict[str, list[Result]]:
    """Let every side take a turn in each round, in reversed order every other round, so that a drift hits all alike.

    Returns:
        The results of each side by round; those of the warm-up rounds are left out.
    """
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            result = sides[name]()
            if number >= warm_up:
                results[name].append(result)
    return results


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Divide pair by pair: what a machine that slows down for a while does to one pair, it does to both its sides."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


@dataclass(frozen=True)
class Power:
    """The fit of y = c · x^exponent; the standard error is None with two points, which leave nothing over."""

    exponent: float
    standard_error: float | None


def fit_power(x: Sequence[float], y: Sequence[float]) -> Power:
    """Fit a power law by least squares on logarithms.

    Raises:
        ValueError: fewer than two different x, or a value that has no logarithm.
    """
    logs = [(math.log(one), math.log(other)) for one, other in zip(x, y, strict=True)]
    mean_x, mean_y = (statistics.fmean(values) for values in zip(*logs, strict=True))
    square = math.fsum((one - mean_x) ** 2 for one, _ in logs)
    if square == 0:
        raise ValueError("a power law needs two different x")
    exponent = math.fsum((one - mean_x) * (other - mean_y) for one, other in logs) / square
    rest = math.fsum((other - mean_y - exponent * (one - mean_x)) ** 2 for one, other in logs)
    freedom = len(logs) - 2
    return Power(exponent, math.sqrt(rest / freedom / square) if freedom else None)
