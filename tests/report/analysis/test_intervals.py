"""Every interval's coverage and compare's false alarms, by simulation: 200 draws here, 2,000 in the benchmark itself.

Of 200 draws, 95 % are 190 with a standard deviation of √(200 · 0.95 · 0.05) = 3.1; the limits of 90 and 99.5 % lie three away.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "benchmarks" / "intervals.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("intervals", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["intervals"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


INTERVALS = load()


@pytest.mark.parametrize("name", list(INTERVALS.INTERVALS))
def test_an_interval_holds_the_truth(name: str) -> None:
    assert 0.90 <= INTERVALS.coverage(INTERVALS.INTERVALS[name], 200) <= 0.995


def test_a_percentile_bootstrap_of_three_would_fail() -> None:
    """The limits tell a wrong interval: mean ± 1.96 standard errors of three values covers 81 % (Student's t, 2 degrees)."""

    def too_narrow(rng: Any) -> tuple[Any, float]:
        from report.analysis.statistics import estimate, normal

        one = estimate(rng.normal(0, 1, 3).tolist())
        return normal(one.mean, one.error, 1e9, 3), 0.0

    assert INTERVALS.coverage(too_narrow, 200) < 0.90


@pytest.mark.parametrize("same_seeds", [False, True])
def test_equal_arms_raise_no_alarm_more_often_than_the_level(same_seeds: bool) -> None:
    """Twelve recipes with unlike noise: 5 % of 200 are 10, sd 3.1; 20 are three away. What is no alarm passes."""
    shares = INTERVALS.outcomes(200, same_seeds=same_seeds, methods=4, lambdas=3, questions=False)
    assert shares[1] <= 0.10
    assert shares[0] + shares[1] == 1


def test_five_points_of_mmlu_are_caught_with_three_seeds() -> None:
    """2,000 questions, one recipe, other seeds: at least 34 of 40 (98 % in the benchmark); four recipes: all of 10."""
    assert INTERVALS.outcomes(40, mmlu_drop=0.05)[1] >= 0.85
    assert INTERVALS.outcomes(10, mmlu_drop=0.05, methods=4)[1] == 1
