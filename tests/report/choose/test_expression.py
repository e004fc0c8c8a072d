"""Evaluation over draws: entry by entry, and where a number is not defined."""

from __future__ import annotations

import numpy as np

from report.choose.expression import Figure, defined, evaluate, figures, holds
from report.choose.parser import parse


def look(figure: Figure) -> np.ndarray:
    return {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([2.0, 0.0, np.nan])}[figure.name]


def test_every_draw_is_computed_for_itself() -> None:
    """1 + 2·2, 2 + 2·0; and a < b holds in the first draw only."""
    read = parse("a < b, maximize a + 2 * b")
    assert evaluate(read.goal, look)[:2].tolist() == [5.0, 2.0]
    assert holds(read.conditions[0].node, look).tolist() == [True, False, False]


def test_division_by_zero_and_missing_values_are_not_defined() -> None:
    """1 / 2 is; 2 / 0 and 3 / NaN are not, and `not` does not make them so."""
    read = parse("not a / b > 1, maximize a")
    assert defined(read.conditions[0].node, look).tolist() == [True, False, False]
    assert holds(read.conditions[0].node, look)[0]
    assert defined(read.goal, look).tolist() == [True, True, True]


def test_figures_are_listed_once_as_they_stand() -> None:
    read = parse("a < b or a > 2, minimize b")
    assert [one.name for one in read.figures] == ["a", "b"]
    assert [one.name for one in figures(read.conditions[0].node)] == ["a", "b", "a"]
