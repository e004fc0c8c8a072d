"""Gaps, distances, increases and what a second phase undid, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from report import tradeoff


def test_a_gap_keeps_its_sign() -> None:
    """1.5 − 1.2 = 0.3; 1.0 − 1.2 = −0.2 is not clipped."""
    assert tradeoff.optimality_gap([1.5, 1.0], 1.2) == pytest.approx([0.3, -0.2])


def test_ideal_distance_is_euclidean() -> None:
    """3-4-5 triangles; a negative gap counts like a positive one."""
    assert tradeoff.ideal_distance([0.3, -0.3, 0.0], [0.4, 0.4, 0.0]) == pytest.approx([0.5, 0.5, 0.0])


def test_increase_is_relative_to_the_baseline() -> None:
    """(15 − 10) / 10 = 50 %; (8 − 10) / 10 = −20 %; against 0 there is none."""
    made = tradeoff.increase_percent([15.0, 8.0, 3.0], [10.0, 10.0, 0.0])
    assert made[:2] == pytest.approx([50.0, -20.0])
    assert np.isnan(made[2])


def test_what_is_not_measured_stays_so() -> None:
    assert np.isnan(tradeoff.optimality_gap(np.nan, 1.0))
    assert np.isnan(tradeoff.ideal_distance(np.nan, 1.0))
    assert np.isnan(tradeoff.increase_percent(np.nan, 1.0))


def test_undone_is_what_the_second_phase_raised() -> None:
    """3.0 → 1.0 → 1.5: 0.5 of the 2.0 nats won are lost, a quarter. 3.0 → 3.5 → 3.6: nothing had been won, so no share."""
    lost, share = tradeoff.undone([3.0, 3.0], [1.0, 3.5], [1.5, 3.6])
    assert lost == pytest.approx([0.5, 0.1])
    assert share[0] == pytest.approx(0.25)
    assert np.isnan(share[1])
