"""f*: the best value that the run on one objective alone reached on a split, without the luck of the draw. Pure.

The lowest of many noisy values of the same rows lies too low: it was chosen for being low on just these. So each half of the
rows chooses a step, and the other half says what f was there; f* is the mean of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HALVES = "halves"


@dataclass(frozen=True)
class Optimum:
    """What a run on one objective alone reached on a split, in nats.

    Attributes:
        value: f*, cross-fitted over two halves of the rows; the last value where a record knows no halves.
        steps: the steps that the halves chose; empty where there are none.
        last: f where the run ended.
        start: f(θ_1), before any step; None where that is not on record.
    """

    value: float
    steps: tuple[int, ...]
    last: float
    start: float | None

    @property
    def learned(self) -> bool | None:
        """Whether training on the objective alone gained anything that holds on this split; None if nobody knows."""
        return None if self.start is None else self.value < self.start


def halves(rows: Sequence[float], weights: Sequence[float]) -> tuple[float, float] | None:
    """Return Σ rows / Σ weights over every other row, and over those between them; None for a single row."""
    if len(rows) < 2:
        return None
    first, second = (
        math.fsum(rows[place::2]) / math.fsum(weights[place::2]) for place in (0, 1)
    )  # a weight is at least one token
    return first, second


def cross_fitted(trajectory: Sequence[Mapping[str, Any]], name: str) -> Optimum | None:
    """Find f* in a trajectory; None where it has no value of that name.

    Args:
        trajectory: points with their step, the objective's value and, as `halves`, its values on both halves of the rows.
        name: such as f_dpo/held_out.
    """
    points = [point for point in trajectory if point.get(name) is not None]
    if not points:
        return None
    last = float(points[-1][name])
    start = float(points[0][name]) if points[0]["step"] == 0 else None
    split = [(point[HALVES][name], int(point["step"])) for point in points if point.get(HALVES, {}).get(name)]
    if len(split) < 2:
        return Optimum(last, (), last, start)
    chosen = [min(split, key=lambda one: one[0][half]) for half in (0, 1)]
    value = (chosen[0][0][1] + chosen[1][0][0]) / 2
    return Optimum(value, tuple(step for _, step in chosen), last, start)
