"""f* without the luck of the draw."""

from __future__ import annotations

import random

import pytest

from bench.records.optimum import HALVES, cross_fitted, halves

NAME = "f_dpo/held_out"


def point(step: int, first: float, second: float) -> dict[str, object]:
    return {"step": step, NAME: (first + second) / 2, HALVES: {NAME: [first, second]}}


def test_every_other_row_is_a_half() -> None:
    """Rows 1, 3 over weights 1, 1 → 2; rows 2, 6 over 1, 3 → 2. A single row has no halves."""
    assert halves([1.0, 2.0, 3.0, 6.0], [1.0, 1.0, 1.0, 3.0]) == (2.0, 2.0)
    assert halves([1.0], [1.0]) is None


def test_each_half_chooses_a_step_and_the_other_says_its_value() -> None:
    """First half: lowest at step 2 (0.4), where the second says 0.7. Second: lowest at 4 (0.5), where the first says 0.6.
    f* = (0.7 + 0.6) / 2."""
    found = cross_fitted([point(0, 0.8, 0.9), point(2, 0.4, 0.7), point(4, 0.6, 0.5), point(6, 0.9, 1.1)], NAME)
    assert found is not None
    assert (found.value, found.steps) == (pytest.approx(0.65), (2, 4))
    assert (found.last, found.start) == (pytest.approx(1.0), pytest.approx(0.85))
    assert found.learned is True


def test_where_nothing_gets_better_nothing_was_learned() -> None:
    """Both halves choose the start: f* is f(θ_1) itself."""
    found = cross_fitted([point(0, 0.5, 0.7), point(2, 0.6, 0.8)], NAME)
    assert found is not None
    assert (found.value, found.steps, found.learned) == (pytest.approx(0.6), (0, 0), False)


def test_a_record_without_halves_has_its_last_value() -> None:
    found = cross_fitted([{"step": 0, NAME: 0.7}, {"step": 5, NAME: 0.6}], NAME)
    assert found is not None
    assert (found.value, found.steps, found.learned) == (0.6, (), True)
    assert cross_fitted([{"step": 0, "f_sft/held_out": 1.0}], NAME) is None


def test_it_has_no_bias_where_the_lowest_value_has() -> None:
    """Twenty points, all of true value 0, each half with noise of sd 1: the lowest mean is far below 0, f* is not.

    The mean of 2,000 cross-fitted values has a standard error of about 0.016; 0.08 is five of them.
    """
    chance = random.Random(0)
    drawn = [[point(step, chance.gauss(0, 1), chance.gauss(0, 1)) for step in range(20)] for _ in range(2000)]
    lowest = [min(float(str(one[NAME])) for one in points) for points in drawn]
    fitted = [found.value for points in drawn if (found := cross_fitted(points, NAME))]
    assert sum(lowest) / len(lowest) < -1
    assert abs(sum(fitted) / len(fitted)) < 0.08
