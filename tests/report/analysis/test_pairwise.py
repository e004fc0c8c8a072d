"""Every recipe against every other: two are a paired t-test, many share what they say of the spread over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from report.analysis import pairwise
from report.analysis.statistics import paired


def test_two_recipes_are_the_paired_t_test() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, error 0.1 / √3 with two degrees of freedom, half width 4.3027 · 0.0577 = 0.2484."""
    values = np.array([[1.1, 2.2, 3.3], [1.0, 2.0, 3.0]])
    made = pairwise.difference(values, pairwise.spreads(values), 0, 1)
    alone = paired({0: 1.1, 1: 2.2, 2: 3.3}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert made.size.mean == pytest.approx(0.2)
    assert (made.size.low, made.size.high) == (pytest.approx(0.2 - 0.2484, abs=1e-4), pytest.approx(0.4484, abs=1e-4))
    assert made.p_value == pytest.approx(alone.p_value)


def test_what_a_seed_adds_to_all_recipes_is_no_spread() -> None:
    values = np.array([[1.0, 2.0, 4.0], [1.5, 2.5, 4.5], [3.0, 4.0, 6.0]])
    made = pairwise.difference(values, pairwise.spreads(values), 0, 1)
    assert made.size.mean == pytest.approx(-0.5) and made.size.error == pytest.approx(0, abs=1e-12)


def test_recipes_that_spread_alike_share_their_degrees() -> None:
    """Residuals of all four are the same but for sign: variance Σ r² / ((n − 1)(k − 1) / k), six degrees together."""
    signs = np.array([1, -1, 1, -1])
    pattern = np.array([0.1, 0.0, -0.1])
    values = np.array([[1.0], [2.0], [3.0], [4.0]]) + signs[:, None] * pattern
    spread = pairwise.spreads(values)
    assert spread.together == 6 and math.isclose(spread.degrees, 6)
    assert list(spread.variances) == pytest.approx([0.02 / 1.5] * 4)
    made = pairwise._by_all(values, spread, 1, 0)
    assert (made.mean, made.degrees) == (pytest.approx(1.0), 6)
    assert made.error == pytest.approx(math.sqrt(2 * 0.02 / 1.5 / 3))


def test_one_that_spreads_more_keeps_more_of_its_own() -> None:
    chance = np.random.default_rng(3)
    values = chance.normal(size=(12, 5)) * np.array([20.0] + [0.1] * 11)[:, None]
    spread = pairwise.spreads(values)
    assert spread.variances[0] > 10 * spread.variances[1:].max()
    assert spread.degrees < spread.together


def test_the_inverse_of_trigamma() -> None:
    from scipy.special import polygamma

    for x in (0.3, 1.0, 7.5, 200.0):
        assert pairwise._inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-6)


def test_a_steady_pair_among_noisy_recipes_is_told_apart_by_itself() -> None:
    """0.100, 0.101, 0.102 below the other in every seed, beside a recipe that moves by whole units."""
    values = np.array([[0.0, 0.0, 0.0], [0.100, 0.101, 0.102], [5.0, -4.0, 2.0], [-3.0, 6.0, 1.0]])
    made = pairwise.difference(values, pairwise.spreads(values), 1, 0)
    assert made.p_value < 0.01
    assert made.size.low == pytest.approx(0.101 - 4.3027 * 0.001 / 3**0.5, abs=1e-5)
