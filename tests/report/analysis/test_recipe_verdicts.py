"""Verdicts on recipes: over seeds, corrected, and no surer than the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.suite_record import find_suites
from report.analysis import recipe_verdicts
from report.analysis.load import Results
from report.analysis.tables import Tables

COMMITTED = Path(__file__).parents[3] / "results"


def frame(folder: Path, *metrics: str) -> Any:
    found = recipe_verdicts.frame(Tables(Results(find_suites(folder)[0])), metrics)
    return found.set_index(["method", "lambda_dpo", "metric"])


def test_better_by_distance_and_by_score(full: Path) -> None:
    """MAXRIGHT at λ = 0.5 is 0.45 · (0.9, 1, 1.1) closer than Sequential and 6 points better on MMLU on every seed."""
    made = frame(full)
    distance, accuracy = made.loc[("maxright", 0.5, "ideal_distance")], made.loc[("maxright", 0.5, "mmlu/acc")]
    assert (distance["difference"], distance["verdict"]) == (pytest.approx(-0.45), "better")
    alone = 4.30265 * 0.045 / 3**0.5  # of these two recipes alone; all twelve together say more of the spread
    assert -0.45 - alone < distance["low"] < -0.45 - alone / 4
    assert (accuracy["difference"], accuracy["verdict"]) == (pytest.approx(0.06), "better")
    assert len(made) == 3 * 3 * 3


def test_seconds_are_better_when_fewer(full: Path) -> None:
    """Mix takes 15 against Sequential's 10 seconds, both 1 % more a seed."""
    assert frame(full, "training_seconds").loc[("mix", 0.5, "training_seconds")]["verdict"] == "worse"


def test_fewer_than_three_seeds_are_not_enough(
    new_writer: type[Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    made = frame(fill_suite(new_writer(tmp_path, "two"), seeds=(0, 1)))
    assert set(made["verdict"]) == {"not enough data"}
    assert made["p_holm"].isna().all()


def test_verdicts_of_the_committed_quickstart() -> None:
    """Golden: at λ = 0.75 Mix forgets far less than Sequential and wins fewer comparisons; ALRIGHT at 0.25 is farther."""
    made = frame(COMMITTED / "quickstart.bench")["verdict"]
    assert made[("mix", 0.75, "ideal_distance")] == "better"
    assert made[("mix", 0.75, "world_questions/acc")] == "better"
    assert made[("mix", 0.75, "win_rate/rule")] == "worse"
    assert made[("alright", 0.25, "ideal_distance")] == "worse"
