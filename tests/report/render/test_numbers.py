"""How numbers are written."""

from __future__ import annotations

import math

from report.render.numbers import MISSING, duration, number, plus_minus, scaled, series_digits


def test_a_number_has_a_true_minus_and_no_negative_zero() -> None:
    assert number(-0.25, 2) == "−0.25"
    assert number(-0.001, 2) == "0.00"
    assert number(0.5, 1, sign=True) == "+0.5"
    assert number(12345.6, 0) == "12,346"
    assert number(math.nan, 2) == MISSING


def test_a_column_gets_the_decimals_of_its_median() -> None:
    """The median size 0.15 asks for 3 decimals to have 3 figures; an all-zero column for 2; thousands for none."""
    assert series_digits([0.05, -0.15, 1.5, math.nan]) == 3
    assert series_digits([0.0]) == 2
    assert series_digits([1234.0]) == 0


def test_spread_is_left_out_where_there_is_none() -> None:
    assert plus_minus(1.0, math.nan, 2) == "1.00"
    assert plus_minus(1.0, 0.5, 2) == "1.00 ± 0.50"


def test_units_people_know() -> None:
    assert scaled("B", [3 * 2**30]) == (2**-30, "GiB")
    assert scaled("B", [3 * 2**20]) == (2**-20, "MiB")
    assert scaled("share", [0.5]) == (100.0, "%")
    assert duration(30.0) == "30.0 s"
    assert duration(600.0) == "10.0 min"
    assert duration(36000.0) == "10.0 h"
