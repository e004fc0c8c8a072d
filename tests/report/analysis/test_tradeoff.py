"""Gaps, distances, increases and what a second phase undid, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from report.analysis import tradeoff


def test_a_gap_keeps_its_sign() -> None:
    """1.5 − 1.2 = 0.3; 1.0 − 1.2 = −0.2 is not clipped."""
    assert tradeoff.optimality_gap([1.5, 1.0], 1.2) == pytest.approx([0.3, -0.2])


def test_ideal_distance_is_euclidean() -> None:
    """3-4-5 triangles; a negative gap is no loss: what is better than f* adds nothing."""
    assert tradeoff.ideal_distance([0.3, -0.3, 0.0], [0.4, 0.4, -0.1]) == pytest.approx([0.5, 0.4, 0.0])


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


def test_gap_in_shares_of_what_training_on_it_alone_gains() -> None:
    """Start 3, optimum 1: a gap of 0.5 is a quarter of the 2 gained; no gain gives no share."""
    assert tradeoff.relative_gap(0.5, 3.0, 1.0) == pytest.approx(0.25)
    assert tradeoff.relative_gap(-0.5, 3.0, 1.0) == pytest.approx(-0.25)
    assert math.isnan(tradeoff.relative_gap(0.5, 1.0, 1.0))


def test_value_between_two_points_of_a_trajectory() -> None:
    """From 4 at 0 tokens over nothing at 50 to 2 at 100: 3.5 at 25, and nothing beyond 100."""
    assert tradeoff.value_at([0, 50, 100], [4.0, math.nan, 2.0], 25) == pytest.approx(3.5)
    assert math.isnan(tradeoff.value_at([0, 50, 100], [4.0, math.nan, 2.0], 101))


def test_dominance_and_front() -> None:
    """(3, 3) is worse than (2, 1) in both; equal points share the front; a point that was not measured is on none."""
    points = [(1.0, 3.0), (2.0, 1.0), (3.0, 3.0), (2.0, 1.0), (math.nan, 0.0)]
    assert tradeoff.pareto_front(points) == [0, 1, 3]
    assert tradeoff.dominates((2.0, 1.0), (2.0, 3.0))
    assert not tradeoff.dominates((2.0, 1.0), (2.0, 1.0))


def test_hypervolume_by_hand() -> None:
    """Below (4, 4): (1, 3) covers 3 · 1, (2, 1) adds 2 · 2; (3, 3) is dominated and (5, 0) lies outside: 7."""
    points = [(2.0, 1.0), (1.0, 3.0), (3.0, 3.0), (5.0, 0.0)]
    assert tradeoff.hypervolume(points, (4.0, 4.0)) == pytest.approx(7.0)
    assert tradeoff.hypervolume([], (4.0, 4.0)) == 0.0


def test_hypervolume_is_the_share_of_random_points_below_the_front() -> None:
    """Of 200,000 points in the unit square, the dominated share has a standard error of at most 0.0011; four of them."""
    rng = np.random.default_rng(0)
    front, drawn = rng.random((6, 2)), rng.random((200_000, 2))
    below = (drawn[:, None, :] >= front[None]).all(axis=2).any(axis=1).mean()
    assert tradeoff.hypervolume(front, (1.0, 1.0)) == pytest.approx(below, abs=0.0045)


def test_spread_is_the_diagonal_of_the_ends() -> None:
    assert tradeoff.spread([(0.0, 4.0), (3.0, 0.0), (1.0, 1.0)]) == pytest.approx(5.0)
    assert math.isnan(tradeoff.spread([(0.0, 4.0)]))
