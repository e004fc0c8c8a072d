"""How small a difference can be seen: against the closed form, and against the report's own test on drawn outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from report.analysis import pairwise, power
from report.analysis.power import AT_WORST, Spread, detectable, measured, needed
from report.analysis.statistics import paired


def test_many_degrees_of_freedom_are_the_normal_closed_form() -> None:
    """δ = (z_0.975 + z_0.8) · σ / √n = (1.95996 + 0.84162) · √(0.5 / 2000) for one seed."""
    assert detectable(AT_WORST, 2000, 1, 2) == pytest.approx((1.959964 + 0.841621) * math.sqrt(0.5 / 2000), rel=1e-5)


def test_few_degrees_of_freedom_are_those_of_the_paired_t_test() -> None:
    """Ten seeds find an effect of 0.997 standard deviations in 80 % (tables of the paired t-test, Cohen 1988)."""
    assert detectable(Spread(1.0), 1, 10, 2) == pytest.approx(0.997, abs=0.002)


def _power(prompts: int, seeds: int, recipes: int, difference: float, spread: Spread, repeats: int, seed: int) -> float:
    """Return how often the report's test sees the difference between the first recipe and the last."""
    generator = np.random.default_rng(seed)
    seen = 0
    for _ in range(repeats):
        rates = np.full((recipes, seeds, 1), 0.5)
        rates[0] += difference / 2
        rates[-1] -= difference / 2
        # half of the variance of a difference is each side's
        rates = rates + generator.normal(0, math.sqrt(spread.seed / 2), (recipes, seeds, 1))
        outcomes = generator.random((recipes, seeds, prompts)) < np.clip(rates, 0, 1)
        values = outcomes.mean(axis=2)
        if recipes == 2:
            estimate = paired(dict(enumerate(values[0])), dict(enumerate(values[1])))
            seen += estimate.p_value <= 0.05
        else:
            seen += pairwise.difference(values, pairwise.spreads(values), 0, recipes - 1).p_value <= 0.05
    return seen / repeats


@pytest.mark.parametrize(("prompts", "seeds", "recipes"), [(100, 3, 2), (60, 5, 2), (100, 3, 4), (48, 3, 9)])
def test_what_is_claimed_is_seen_in_eight_of_ten(prompts: int, seeds: int, recipes: int) -> None:
    """Coin flips at the claimed difference: 80 % of 1,000 suites, give or take what 1,000 and the discreteness allow."""
    spread = AT_WORST
    claimed = detectable(spread, prompts, seeds, recipes)
    assert _power(prompts, seeds, recipes, claimed, spread, 1000, 3) == pytest.approx(0.8, abs=0.05)


def test_it_holds_where_seeds_change_more_than_their_luck() -> None:
    spread = Spread(0.5, 0.003)
    claimed = detectable(spread, 200, 4, 2)
    assert _power(200, 4, 2, claimed, spread, 1000, 4) == pytest.approx(0.8, abs=0.05)


def test_what_is_needed_shows_the_difference() -> None:
    for seeds, recipes in ((3, 2), (1, 4), (5, 12)):
        found = needed(AT_WORST, 0.02, seeds, recipes)
        assert found is not None
        assert found.seeds == max(3, seeds)
        assert detectable(AT_WORST, found.items, found.seeds, recipes) <= 0.02
        assert detectable(AT_WORST, found.items - 1, found.seeds, recipes) > 0.02


def test_more_seeds_are_needed_where_no_number_of_items_would_do() -> None:
    """A seed alone changes a difference by 3 points: with three seeds 2 points drown in it, whatever the items."""
    spread = Spread(0.5, 0.03**2)
    assert detectable(spread, 10**9, 3, 2) > 0.02
    found = needed(spread, 0.02, 3, 2)
    assert found is not None
    assert found.seeds > 3
    assert detectable(spread, found.items, found.seeds, 2) <= 0.02
    assert needed(Spread(0.5, 10.0), 0.02, 3, 2) is None


def test_where_items_are_given_more_seeds_are_needed() -> None:
    """805 prompts are not enough with three seeds: 5,245 would be (four recipes)."""
    found = needed(AT_WORST, 0.02, 3, 4, most=805)
    assert found is not None
    assert found.items <= 805
    assert detectable(AT_WORST, found.items, found.seeds, 4) <= 0.02
    assert detectable(AT_WORST, 805, found.seeds - 1, 4) > 0.02


def test_the_spread_is_found_again() -> None:
    """Differences of variance 2 · 0.2 an item and 2 · 0.01 a seed, on 60 seeds, prompts of changing difficulty."""
    generator = np.random.default_rng(5)
    shape = (4, 60, 200)
    outcomes = (
        generator.normal(0, math.sqrt(0.2), shape)
        + generator.normal(0, 0.1, (4, 60, 1))
        + generator.normal(0, 1.0, (1, 1, 200))  # the same for both sides
        + generator.normal(0, 0.3, (4, 1, 200))  # a recipe's own on a prompt: no luck of a seed
    )
    found = measured(outcomes)
    assert found is not None
    assert found.item == pytest.approx(0.4, rel=0.03)
    assert found.seed == pytest.approx(0.02, rel=0.25)


def test_the_spread_of_two_by_two_by_two_by_hand() -> None:
    """Differences [[1, 0], [0, −1]] (seeds × items): means of seeds ½ and −½, of items ½ and −½, in all 0.

    Left over is [[0, 0], [0, 0]]; the seeds' means have the variance ½.
    """
    outcomes = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    assert measured(outcomes) == Spread(0.0, 0.5)


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 1, 5), (3, 3, 1), (0, 0, 0)])
def test_too_little_tells_no_spread(shape: tuple[int, int, int]) -> None:
    assert measured(np.zeros(shape)) is None
    assert power.detectable(AT_WORST, 1, 1, 2) == math.inf
