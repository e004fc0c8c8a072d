"""Differences over the same questions and pairs, and over seeds and questions, against hand-derived values."""

from __future__ import annotations

import numpy as np
import pytest

from report.analysis.items import bootstrapped, crossed, crossed_apart, mcnemar
from report.analysis.statistics import estimate

TEN_SUBJECTS = [subject for subject in range(10) for _ in range(2)]


def test_mcnemar_by_hand() -> None:
    """8 questions only the first has right, 2 only the second: 2 · (1 + 10 + 45) / 2¹⁰ = 0.109375; agreement does not count."""
    first = [1] * 8 + [0] * 2 + [1] * 30 + [0] * 5
    second = [0] * 8 + [1] * 2 + [1] * 30 + [0] * 5
    made = mcnemar(first, second)
    assert (made.only_first, made.only_second, made.p_value) == (8, 2, pytest.approx(0.109375))
    assert mcnemar(first, first).p_value == 1.0


def test_a_subjects_questions_move_together() -> None:
    """Ten subjects of two questions, one subject +1 on both: mean 0.1; totals 1.8 and nine times −0.2, squares 3.6.

    error = √(10/9 · 3.6) / 20 = 0.1. Question by question it would be √(20 · 0.0947) / 20 = 0.069.
    """
    made = bootstrapped([1.0, 1.0, *[0.0] * 18], TEN_SUBJECTS)
    assert (made.mean, made.error, made.n) == (pytest.approx(0.1), pytest.approx(0.1), 20)


def test_few_subjects_are_taken_as_given() -> None:
    """1, 0, −1, 0 in two subjects: the standard error of the mean over questions, √(2/3) / 2."""
    made = bootstrapped([1.0, 0.0, -1.0, 0.0], ["a", "a", "b", "b"])
    assert (made.mean, made.error, made.degrees) == (0.0, pytest.approx((2 / 3) ** 0.5 / 2), 3)


def test_an_interval_ends_where_differences_do() -> None:
    """Four questions, three of them +1: the interval would reach past 1, the largest difference there can be."""
    made = bootstrapped([1.0, 1.0, 1.0, 0.0], "abcd", reach=1.0)
    assert made.high == 1.0
    assert bootstrapped([1.0, 1.0, 1.0, 0.0], "abcd").high > 1.0


def test_win_rates_are_paired_by_pair() -> None:
    """Differences of 5 ± 1 over 100 pairs: t(0.975, 99) = 1.984 standard errors to either side, roughly."""
    noise = np.random.default_rng(0).normal(0, 1, 100)
    made = bootstrapped((5 + noise).tolist(), range(100))
    assert made.mean == pytest.approx(5 + noise.mean())
    assert made.high - made.low == pytest.approx(2 * 1.984 * noise.std(ddof=1) / 10, rel=0.1)


def test_without_question_effects_seeds_are_all_that_counts() -> None:
    """Seeds at 1, 2, 3 on every question: the interval over seeds, 2 ± 2.48414."""
    made = crossed(np.repeat([[1.0], [2.0], [3.0]], 20, axis=1), TEN_SUBJECTS)
    assert (made.low, made.high) == (pytest.approx(2 - 2.48414, abs=1e-5), pytest.approx(2 + 2.48414, abs=1e-5))


def test_without_seed_effects_questions_are_all_that_counts() -> None:
    """Every seed 0, 0, 4, 4: mean 2, error √(4/3 · 4 · (2/4)²) = 1.1547 with 3 degrees of freedom."""
    made = crossed([[0.0, 0.0, 4.0, 4.0]] * 3, ["one subject"] * 4)
    assert (made.mean, made.error, made.degrees) == (2.0, pytest.approx(1.154701), pytest.approx(3.0))


def test_both_count_when_both_vary() -> None:
    """Seeds −1, 0, 1 and questions ±2 without interaction: variances 1/3 and 4/3 · 4 · 1/4 add up; n counts seeds."""
    values = np.array([[-1.0], [0.0], [1.0]]) + np.array([[-2.0, -2.0, 2.0, 2.0]])
    made = crossed(values, ["one subject"] * 4)
    assert made.error**2 == pytest.approx(1 / 3 + 4 / 3)
    assert made.degrees == pytest.approx((5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 3))
    assert made.n == 3


def test_other_seeds_on_each_side() -> None:
    """Seeds 1, 2, 3 against 0, 1, 2 on every question: mean 1, error √(1/3 + 1/3), 4 degrees whether pooled or not."""
    first, second = (np.repeat(np.array([[0.0], [1.0], [2.0]]) + shift, 20, axis=1) for shift in (1.0, 0.0))
    for pool in (False, True):
        made = crossed_apart(first, second, TEN_SUBJECTS, pool)
        assert (made.mean, made.error, made.degrees) == (
            pytest.approx(1.0),
            pytest.approx((2 / 3) ** 0.5),
            pytest.approx(4.0),
        )


def test_pooled_degrees_do_not_hang_on_how_unlike_the_sides_are() -> None:
    """Sides with sd 1 and 0: Welch keeps 2 degrees of freedom, the test of "nothing changed" has all 4."""
    first, second = np.repeat([[0.0], [1.0], [2.0]], 20, axis=1), np.zeros((3, 20))
    assert crossed_apart(first, second, TEN_SUBJECTS).degrees == pytest.approx(2.0)
    assert crossed_apart(first, second, TEN_SUBJECTS, pool=True).degrees == pytest.approx(4.0)


def test_fewer_than_three_seeds_give_no_interval() -> None:
    assert not crossed(np.ones((2, 20)), TEN_SUBJECTS).has_interval
    assert not crossed_apart(np.ones((2, 20)), np.ones((5, 20)), TEN_SUBJECTS).has_interval
    assert estimate([1.0, 2.0]).n == crossed(np.ones((2, 20)), TEN_SUBJECTS).n
