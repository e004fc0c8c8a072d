"""How a figure is written: estimates are made on the scale on which they compare, and shown as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.records.metrics import Metric
from report.render.numbers import number, plus_minus, scaled, series_digits

_DIGITS = {"%": 1, "tokens": 0, "steps": 0, "rows": 0}


@dataclass(frozen=True)
class Shown:
    """Write a metric's values.

    Attributes:
        factor: from the estimate's scale to what is written; of a log metric, whose estimates are of logarithms, 1.
        unit: of what is written: % for a share.
        digits: decimals of a value.
    """

    metric: Metric
    factor: float
    unit: str
    digits: int

    @property
    def title(self) -> str:
        """The metric's title with the unit."""
        says_it = not self.unit or self.unit.lower() == self.metric.title.lower()
        return self.metric.title if says_it else f"{self.metric.title} ({self.unit})"

    @property
    def difference_unit(self) -> str:
        """The unit of a difference of two values."""
        if self.metric.scale == "log":
            return "%"
        is_score = self.metric.unit in ("share", "%") and self.metric.kind != "cost"
        return "points" if is_score else self.unit

    def value(self, estimate: float) -> float:
        """Turn an estimate into the number to write."""
        if self.metric.scale == "log":
            return math.inf if estimate > 700 else math.exp(estimate)
        return estimate * self.factor

    def spread(self, estimate: float, sd: float) -> float:
        """Turn a standard deviation (or error) around an estimate into the number to write."""
        return self.value(estimate) * sd if self.metric.scale == "log" else sd * self.factor

    def difference(self, estimate: float) -> float:
        """Turn a difference of two estimates into the number to write: of a log metric, the change in per cent."""
        return 100 * math.expm1(estimate) if self.metric.scale == "log" else estimate * self.factor

    def mean(self, estimate: float, sd: float = math.nan, sign: bool = False) -> str:
        """Write a mean ± its standard deviation."""
        return plus_minus(self.value(estimate), self.spread(estimate, sd), self.digits, sign)

    def text(self, estimate: float, sign: bool = False) -> str:
        """Write one value."""
        return number(self.value(estimate), self.digits, sign)


def shown(metric: Metric, estimates: Iterable[float], ranked: Iterable[float] = ()) -> Shown:
    """Choose unit and decimals that suit the values of a column.

    Args:
        estimates: all values of the column, on the estimates' scale.
        ranked: those that decide the decimals; all of them when left out.
    """
    values = list(estimates)
    factor, unit = (1.0, metric.unit) if metric.scale == "log" else scaled(metric.unit, values)
    probe = Shown(metric, factor, unit, 0)
    deciding = [probe.value(one) for one in (list(ranked) or values)]
    digits = max(3, series_digits(deciding)) if unit == "nats" else _DIGITS.get(unit, series_digits(deciding))
    return Shown(metric, factor, unit, digits)
