"""The table of recipes against Sequential at the same λ: a pair of it keeps its corrected p-value wherever it is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from report.analysis.statistics import Estimate
from report.analysis.tables import RecipeKey, RecipeResults, Tables


@dataclass(frozen=True)
class Matched:
    """A pair of the table in one figure.

    Attributes:
        size: the first less the second, on the figure's scale.
        p: corrected over the figure's rows.
        comparisons: how many rows those are.
    """

    size: Estimate
    p: float
    comparisons: int


class AgainstSequential:
    """Find pairs in the table.

    Args:
        frame: returns it; made when the first pair is asked for.
    """

    def __init__(self, tables: Tables, frame: Callable[[], pd.DataFrame]) -> None:
        self.tables, self._frame = tables, frame

    def find(self, one: RecipeResults, other: RecipeResults, name: str) -> Matched | None:
        """Return a pair in either order; None where it does not stand in the table."""
        for recipe, baseline in ((one, other), (other, one)):
            rows = self._rows.get(name, {})
            if recipe.key in rows and self.tables.sequential(recipe.lambda_dpo) is baseline:
                size, p = rows[recipe.key]
                return Matched(size if recipe is one else size.negated, p, len(rows))
        return None

    @cached_property
    def _rows(self) -> dict[str, dict[RecipeKey, tuple[Estimate, float]]]:
        """Figure -> recipe -> its difference to Sequential and the p-value."""
        found: dict[str, dict[RecipeKey, tuple[Estimate, float]]] = {}
        for row in self._frame().to_dict("records"):
            mean, low, high = (float(row[part]) for part in ("difference", "low", "high"))
            size = Estimate(mean, math.nan, low, high, int(row["seeds"]))
            found.setdefault(row["metric"], {})[row["method"], row["lambda_dpo"]] = size, float(row["p_holm"])
        return found
