"""Means, spreads and Student-t intervals against hand-derived values, SciPy, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from report.statistics import estimate, paired


def test_three_values_by_hand() -> None:
    """1, 2, 3: mean 2, sd 1, t(0.975, 2) = 4.30265, half width 4.30265 / √3 = 2.48414."""
    made = estimate([1.0, 2.0, 3.0])
    assert (made.mean, made.sd, made.n) == (2.0, 1.0, 3)
    assert (made.low, made.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)


def test_interval_equals_scipys() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 8)
    made = estimate(values.tolist())
    expected = stats.t.interval(0.95, 7, loc=values.mean(), scale=stats.sem(values))
    assert (made.low, made.high) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [1.0, 2.0, math.nan]])
def test_fewer_than_three_seeds_give_no_interval(values: list[float]) -> None:
    made = estimate(values)
    assert not made.has_interval
    assert not made.excludes_zero


def test_nothing_measured_is_nan_and_not_zero() -> None:
    made = estimate([math.nan, math.nan])
    assert made.n == 0
    assert math.isnan(made.mean)


def test_pairing_takes_out_what_a_seed_does_to_both() -> None:
    """Seeds shift both sides by 10, 20, 30: differences are 1, 1, 1 (sd 0), though each side's sd is 10; seed 4 is alone."""
    made = paired({1: 11.0, 2: 21.0, 3: 31.0, 4: 99.0}, {1: 10.0, 2: 20.0, 3: 30.0})
    assert (made.mean, made.sd, made.n) == (1.0, 0.0, 3)
    assert made.excludes_zero


def test_reach_is_the_far_end_of_the_interval() -> None:
    """Mean 1, half width 2.48414: from −1.48 to 3.48, so it could be up to 3.48."""
    made = estimate([0.0, 1.0, 2.0])
    assert not made.excludes_zero
    assert made.reach == pytest.approx(3.48414, abs=1e-5)


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    """1,000 draws of three normal seeds: the count of hits has sd √(0.95 · 0.05 · 1000) = 6.9; four sd either side."""
    generator = np.random.default_rng(1)
    made = [estimate(generator.normal(5.0, 1.0, 3).tolist()) for _ in range(1000)]
    hits = sum(one.low <= 5.0 <= one.high for one in made)
    assert abs(hits - 950) <= 28
