from __future__ import annotations

import numpy as np
import pytest

from bench.evaluators.length import length_controlled


def test_two_groups_by_hand() -> None:
    """Half of our answers are 100 letters longer and get 0.9, half are 100 shorter and get 0.5.

    The standard deviation of ±100 is 100, so the feature is ± tanh 1 and the fit goes through both groups:
    θ + φ tanh 1 = logit 0.9 = ln 9 and θ − φ tanh 1 = logit 0.5 = 0. So θ = ln 9 / 2 = ln 3 and σ(θ) = 3 / 4,
    where the plain mean is 70 %.
    """
    found = length_controlled([0.9] * 10 + [0.5] * 10, [100] * 10 + [-100] * 10)
    assert found["length_controlled_win_rate"] == pytest.approx(75, abs=1e-3)


def test_soft_and_hard_preferences_of_one_mean_fit_alike() -> None:
    """The cross-entropy is linear in the preference: nine wins in ten are ten times 0.9."""
    soft = length_controlled([0.9] * 10 + [0.5] * 10, [100] * 10 + [-100] * 10)
    hard = length_controlled([1.0] * 9 + [0.0] + [1.0, 0.0] * 5, [100] * 10 + [-100] * 10)
    assert hard["length_controlled_win_rate"] == pytest.approx(soft["length_controlled_win_rate"], abs=1e-3)
    assert hard["length_controlled_standard_error"] > soft["length_controlled_standard_error"]


def test_without_an_effect_of_length_it_is_the_win_rate() -> None:
    """60 % wins in either length group; its standard error is near that of a mean, sqrt(0.6 · 0.4 / 400) = 2.45 %."""
    wins = [1.0] * 120 + [0.0] * 80
    found = length_controlled(wins + wins, [50] * 200 + [-50] * 200)
    assert found["length_controlled_win_rate"] == pytest.approx(60, abs=1e-3)
    assert found["length_controlled_standard_error"] == pytest.approx(2.45, abs=0.4)


def test_it_is_found_again_in_made_data() -> None:
    """Draw 4,000 preferences from σ(0.5 + 1.5 tanh(d / s)): σ(0.5) = 62.2 %; the plain mean is pulled up by longer answers."""
    generator = np.random.default_rng(0)
    differences = generator.normal(60, 100, 4000).astype(int)
    chance = 1 / (1 + np.exp(-(0.5 + 1.5 * np.tanh(differences / differences.std()))))
    preferences = (generator.random(4000) < chance).astype(float)
    found = length_controlled(preferences.tolist(), differences.tolist())
    assert found["length_controlled_win_rate"] == pytest.approx(62.2, abs=3 * found["length_controlled_standard_error"])
    assert found["length_controlled_standard_error"] < 1.5
    assert 100 * preferences.mean() > found["length_controlled_win_rate"] + 5
    assert length_controlled(preferences.tolist(), differences.tolist()) == found


@pytest.mark.parametrize(
    ("count", "difference", "reason"),
    [(9, [1, 2, 3] * 3, "9 pairs are too few"), (10, [5] * 10, "all pairs differ in length by the same")],
)
def test_what_pairs_cannot_tell_is_null(count: int, difference: list[int], reason: str) -> None:
    found = length_controlled([0.5] * count, difference)
    assert found["length_controlled_win_rate"] is None
    assert found["length_controlled_standard_error"] is None
    assert reason in found["length_controlled_reason"]


def test_pairs_that_length_separates_stay_finite() -> None:
    """The longer answer always wins: which of two equally long ones would is a coin, by symmetry."""
    found = length_controlled([1.0] * 10 + [0.0] * 10, [100] * 10 + [-100] * 10)
    assert found["length_controlled_win_rate"] == pytest.approx(50, abs=1e-6)
