"""The simulated suites go through the report's own ranking."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import crowning


def test_the_better_recipe_is_named_where_it_is_far_ahead_and_nobody_among_equals() -> None:
    rng = np.random.default_rng(0)
    assert crowning.crowned(crowning.draw(rng, 4, 5, better=8.0)) == 3
    assert [crowning.crowned(crowning.draw(rng, 12, 3)) for _ in range(20)] == [None] * 20


def test_two_seeds_name_nobody() -> None:
    assert crowning.crowned(crowning.draw(np.random.default_rng(0), 4, 2, better=50.0)) is None


def test_the_upper_end_of_a_share() -> None:
    """None of 300: 1 − 0.05^(1 / 300) = 0.00994; all of them: 1."""
    assert crowning._upper(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert crowning._upper(5, 5) == 1.0
