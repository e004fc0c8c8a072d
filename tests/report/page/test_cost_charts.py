"""Figure 4's layout and cost against quality: which records they show, and what they say in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.suite_record import find_suites
from report.analysis.load import Results
from report.analysis.tables import Tables
from report.page.cost_charts import cost_against_quality, evaluation_steps, max_evaluation


@pytest.fixture
def varied(writer: Callable[..., Any]) -> Tables:
    """Write MAXRIGHT with k = 100 and k = 1, in that order, at two λ; distances are 0.05 for k = 1 and twice that for 100."""
    made = writer(methods=[{"name": "maxright", "label": f"maxright k = {k}"} for k in (100, 1)])
    made.behind((0,))
    for k, far in ((100, 0.1), (1, 0.05)):
        for lambda_dpo in (0.25, 0.75):
            labels = {"method": f"maxright k = {k}", "base_method": "maxright", "lambda_dpo": lambda_dpo, "seed": 0}
            labels |= {"phase_steps": {"dpo": 50, "sft": 50}, "options": {"max_eval_every": k}}
            final = {"dpo": 0.2 + 0.6 * far, "sft": 1.0 + 0.8 * far}
            made.train(f"maxright-k{k}-l{lambda_dpo}-s0", ["run"], labels, final, 10.0)
    return Tables(Results(find_suites(made.finish())[0]))


def test_recipes_by_evaluation_interval(varied: Tables) -> None:
    found = evaluation_steps(varied)
    assert {k: [one.name for one in recipes] for k, recipes in found.items()} == {
        1: ["maxright k = 1 at λ = 0.25", "maxright k = 1 at λ = 0.75"],
        100: ["maxright k = 100 at λ = 0.25", "maxright k = 100 at λ = 0.75"],
    }


def test_figure_4_tells_its_numbers(varied: Tables, tmp_path: Path) -> None:
    """Five panels; a mean over λ of 0.05 at k = 1 and 0.1 at k = 100; no Sequential, so no increase in runtime."""
    drawn = max_evaluation(varied, tmp_path / "figures")
    assert drawn is not None
    assert len(drawn.side) == 5
    assert "k = 1: 0.050, k = 100: 0.100" in drawn.side[2].alt
    assert "missing" in drawn.side[3].alt
    assert (tmp_path / drawn.image).stat().st_size > 1000
    assert [row.cells[4].text for row in drawn.data[0].rows] == ["0.050", "0.050", "0.100", "0.100"]


def test_a_suite_with_one_interval_has_no_figure_4(full: Path, tmp_path: Path) -> None:
    assert max_evaluation(Tables(Results(find_suites(full)[0])), tmp_path) is None


def test_cost_against_quality_names_the_best_and_the_cheapest(full: Path, tmp_path: Path) -> None:
    """Distance over seconds and over tokens, then both scores over seconds; Sequential takes 10 s, the least."""
    drawn = cost_against_quality(Tables(Results(find_suites(full)[0])), tmp_path / "figures")
    assert drawn is not None
    assert len(drawn.side) == 4
    assert "Best: maxright at λ = 0.5; cheapest: sequential at λ = 0.25." in drawn.side[0].alt
    row = next(row for row in drawn.data[0].rows if row.cells[0].text == "maxright at λ = 0.5")
    assert (row.cells[1].text, row.cells[0].link) == ("11.1 ± 0.1", "runs-maxright-0_5")
