"""Sides alternate, ratios pair up, and exponents come out as worked by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.timing import alternate, fit_power, ratios, spread


def test_sides_alternate_in_reversed_order_and_the_warm_up_is_left_out() -> None:
    """One warm-up round (A B) and two rounds (B A, A B): the counter says when each took its turn."""
    turns: list[str] = []

    def side(name: str) -> int:
        turns.append(name)
        return len(turns)

    results = alternate({"A": lambda: side("A"), "B": lambda: side("B")}, rounds=2, warm_up=1)
    assert "".join(turns) == "ABBAAB"
    assert results == {"A": [4, 5], "B": [3, 6]}


def test_ratios_are_taken_pair_by_pair() -> None:
    """6/2, 8/4 and 10/10; a machine twice as slow in the last pair changes both sides of it."""
    assert ratios([6.0, 8.0, 10.0], [2.0, 4.0, 10.0]) == [3.0, 2.0, 1.0]
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


def test_spread() -> None:
    """The middle of 1, 2, 9 is 2."""
    assert vars(spread([9.0, 1.0, 2.0])) == {"minimum": 1.0, "median": 2.0, "maximum": 9.0, "n": 3}


def test_an_exact_power_law_is_found_without_error() -> None:
    """y = 3 x^1.5 at 1, 4, 16: 3, 24, 192."""
    power = fit_power([1, 4, 16], [3, 24, 192])
    assert power.exponent == pytest.approx(1.5)
    assert power.standard_error == pytest.approx(0, abs=1e-9)


def test_the_standard_error_of_an_exponent() -> None:
    """log x = 0, 1, 2 and log y = 0, 1, 1: slope (1·1)/2 = 1/2, intercept 1/6.

    Residuals −1/6, 1/3, −1/6: their squares add up to 1/6; over one degree of freedom and Σ(x − x̄)² = 2: √(1/12).
    """
    power = fit_power([1, math.e, math.e**2], [1, math.e, math.e])
    assert power.exponent == pytest.approx(0.5)
    assert power.standard_error == pytest.approx(math.sqrt(1 / 12))


def test_two_points_have_a_slope_and_no_error() -> None:
    """From (1, 1) to (2, 8) the exponent is 3."""
    power = fit_power([1, 2], [1, 8])
    assert power.exponent == pytest.approx(3)
    assert power.standard_error is None


def test_one_point_has_no_slope() -> None:
    with pytest.raises(ValueError, match="two different x"):
        fit_power([2, 2], [1, 3])
