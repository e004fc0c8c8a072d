"""Means, spreads and Student-t intervals against hand-derived values, SciPy, and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from report.analysis.statistics import Estimate, estimate, holm, independent, paired, pooled


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


def test_an_interval_is_cut_to_where_its_figure_can_lie() -> None:
    """0.02, 0.5, 0.98: sd 0.48, half width 4.30265 · 0.48 / √3 = 1.19238, so −0.69 to 1.69: of a share, 0 to 1.

    The test is as before. A mean outside its range, which nothing here measures, stays inside its interval.
    """
    made = estimate([0.02, 0.5, 0.98])
    assert (made.low, made.high) == pytest.approx((-0.69238, 1.69238), abs=1e-5)
    cut = made.inside(0.0, 1.0)
    assert (cut.low, cut.high, cut.mean, cut.p_value) == (0.0, 1.0, made.mean, made.p_value)
    assert made.inside(-math.inf, math.inf) == made
    assert (made.inside(0.6, 1.0).low, made.inside(0.0, 0.4).high) == (made.mean, made.mean)
    assert math.isnan(estimate([1.0, 2.0]).inside(0.0, 1.0).low)


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


def test_from_ten_seeds_the_interval_is_a_bootstrap_that_bends_with_the_values() -> None:
    """Log-normal values have their long side above: so has the interval, where Student's t is symmetric."""
    rng = np.random.default_rng(2)
    made = estimate(rng.lognormal(size=40).tolist())
    assert made.high - made.mean > 1.2 * (made.mean - made.low)
    assert made == estimate(np.random.default_rng(2).lognormal(size=40).tolist()), (
        "seeded: the same values, the same interval"
    )


def test_the_bootstrap_of_many_normal_values_is_students_interval() -> None:
    """Of 400 normal values both agree to a twentieth of the half width (4,999 resamples)."""
    values = np.random.default_rng(3).normal(size=400)
    made = estimate(values.tolist())
    low, high = stats.t.interval(0.95, 399, loc=values.mean(), scale=stats.sem(values))
    assert (made.low, made.high) == pytest.approx((low, high), abs=0.05 * (high - low) / 2)


def test_values_nearly_all_the_same_fall_back_on_students_t() -> None:
    """Eleven 0 and one 1: (11/12)¹² = 35 % of the resamples hold 0 only; mean 1/12, sd √(1/12), error 1/12."""
    made = estimate([0.0] * 11 + [1.0])
    assert (made.low, made.high) == pytest.approx((1 / 12 - 2.20099 / 12, 1 / 12 + 2.20099 / 12), abs=1e-6)
    assert estimate([0.3] * 12).high == pytest.approx(0.3), "no spread at all: no width"


def test_p_values_are_scipys() -> None:
    values = np.random.default_rng(4).normal(0.3, 1.0, 6)
    made = estimate(values.tolist())
    assert made.p_value == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert made.p_above == pytest.approx(stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)
    assert made.p_below == pytest.approx(1 - made.p_above)


def test_equal_differences_are_taken_at_their_word() -> None:
    """Three differences of 1 have no spread: above 0 for sure; three of 0 are no sign of anything."""
    assert estimate([1.0, 1.0, 1.0]).p_above == 0.0
    assert estimate([0.0, 0.0, 0.0]).p_above == 1.0
    assert math.isnan(estimate([1.0, 1.0]).p_above)


@pytest.mark.parametrize(("function", "equal_var"), [(independent, False), (pooled, True)])
def test_two_sets_of_seeds_are_scipys(function: Callable[..., Estimate], equal_var: bool) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(1.0, 0.5, 4), rng.normal(0.6, 0.2, 3)
    made, expected = function(a.tolist(), b.tolist()), stats.ttest_ind(a, b, equal_var=equal_var)
    interval = expected.confidence_interval(0.95)
    assert made.p_value == pytest.approx(expected.pvalue)
    assert (made.low, made.high) == pytest.approx((interval.low, interval.high))
    assert not function(a[:2].tolist(), b.tolist()).has_interval


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04, and 0.04 may not fall below 0.06; NaN does not count."""
    assert holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
