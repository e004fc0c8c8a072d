"""Scores with intervals and changes by subject, worked out by hand."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import pytest

from bench.records.metrics import undescribed
from bench.records.suite_record import find_suites
from report.analysis.load import Measured, Results
from report.analysis.tables import RecipeResults, Tables
from report.page import score_charts
from report.page.score_charts import by_subject, differences, over_recipes, subjects
from report.render.shown import Shown, shown


def recipe(name: str, *scores: Measured) -> RecipeResults:
    """Return a recipe with one score by seed."""
    figures = {seed: {name: one} for seed, one in enumerate(scores)}
    return RecipeResults("mix", "mix", 0.5, {seed: f"mix-s{seed}" for seed in figures}, figures, undescribed)


def writes(name: str) -> Shown:
    return shown(undescribed(name), [0.5])


def test_three_seeds_give_student_t() -> None:
    """50, 52 and 54 %: mean 52, sd 2, t(0.975, 2) = 4.3027, half width 4.3027 · 2 / √3 = 4.968."""
    found = over_recipes(
        recipe("win_rate/rule", *(Measured(value) for value in (50.0, 52.0, 54.0))), writes("win_rate/rule")
    )
    assert found is not None
    assert (found.value, found.source) == (52.0, "3 seeds")
    assert (found.low, found.high) == (pytest.approx(52 - 4.968, abs=1e-3), pytest.approx(52 + 4.968, abs=1e-3))


def test_one_seed_gives_the_scores_own_interval() -> None:
    """A share of 0.6 with standard error 0.05 is 60 % with 1.96 · 5 = 9.8 points to either side."""
    found = over_recipes(recipe("mmlu/acc", Measured(0.6, standard_error=0.05)), writes("mmlu/acc"))
    assert found is not None
    assert (found.value, found.low, found.high) == (60.0, pytest.approx(50.2), pytest.approx(69.8))
    assert found.source == "one seed, over its questions"


def test_two_seeds_give_no_interval_and_a_missing_score_no_point() -> None:
    found = over_recipes(recipe("win_rate/rule", Measured(50.0), Measured(60.0)), writes("win_rate/rule"))
    assert found is not None
    assert math.isnan(found.low)
    assert over_recipes(recipe("win_rate/rule", Measured(None, "no")), writes("win_rate/rule")) is None


def test_changes_by_subject_are_paired_by_question(full: Path) -> None:
    """The base model has questions 0 to 9 of 20 right, a Mix run 10 (0.52 · 20 = 10.4 and 0.54 less its thousandth: 10 or 11).

    MAXRIGHT (0.56 to 0.562) has 11: one more, question 10, of the subject logic. Logic has ten questions, of which one
    changes by 100 points in all three seeds: mean 10, sd √((90² + 9 · 10²) / 9) = 31.62, t(0.975, 9) = 2.2622, half width
    2.2622 · 31.62 / √10 = 22.62. Physics does not change at all.
    """
    results = Results(find_suites(full)[0])
    maxright = next(one for one in Tables(results).recipes if one.key == ("maxright", 0.5))
    base = by_subject(results, "base", "mmlu/acc")
    assert {name: sum(found.values()) for name, found in base.items()} == {"logic": 5, "physics": 5}
    logic, physics = differences(results, maxright, base, "mmlu/acc", fewest=10)
    assert (logic.name, logic.value, logic.source) == ("logic", pytest.approx(10), "10 questions")
    assert (logic.low, logic.high) == (pytest.approx(10 - 22.622, abs=1e-2), pytest.approx(10 + 22.622, abs=1e-2))
    assert (physics.name, physics.value, physics.low, physics.high) == ("physics", 0.0, 0.0, 0.0)


def test_the_figure_says_how_many_subjects_are_clear(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten questions a subject are too few for a change to say anything."""
    tables = Tables(Results(find_suites(full)[0]))
    maxright = next(one for one in tables.recipes if one.key == ("maxright", 0.5))
    assert subjects(tables, tmp_path / "figures", [maxright]) is None
    ten = functools.partial(differences, fewest=10)
    monkeypatch.setattr(score_charts, "differences", ten)
    drawn = subjects(tables, tmp_path / "figures", [maxright])
    assert drawn is not None
    assert "excludes 0 in 0 of 2 subjects" in drawn.alt
    assert (tmp_path / drawn.image).stat().st_size > 1000
    assert [row.cells[2].text for row in drawn.data[0].rows] == ["+0.0", "+10.0"]
    assert subjects(tables, tmp_path / "figures", []) is None
