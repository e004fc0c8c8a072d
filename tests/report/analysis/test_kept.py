"""What was learned against what was kept, by hand from the values that the fixture writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.records.suite_record import find_suites
from report.analysis import kept
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.page import present


def summaries(folder: Path) -> dict[tuple[str, float | None], kept.Summary]:
    return {one.recipe.key: one for one in Findings(Results(find_suites(folder)[0])).kept}


def test_a_change_against_the_base_and_what_is_kept(full: Path) -> None:
    """MAXRIGHT at 0.5: 0.56, 0.561, 0.562 on MMLU against the base's 0.5; MMLU is the only task that nobody trains for."""
    one = summaries(full)["maxright", 0.5]
    assert list(one.changes) == ["mmlu/acc"]
    assert one.changes["mmlu/acc"].mean == pytest.approx(0.061)
    assert one.kept.mean == pytest.approx(0.061) and one.kept.excludes_zero


def test_what_was_learned_is_a_share_of_what_training_alone_learns(full: Path) -> None:
    """1 − (gap_DPO / (f_DPO(θ_1) − f*_DPO) + gap_SFT / (f_SFT(θ_1) − f*_SFT)) / 2, from the gaps that are tabled."""
    tables = Findings(Results(find_suites(full)[0]))
    recipe = next(one for one in tables.recipes if one.key == ("mix", 0.5))
    run = next(run for run in tables.results.runs if run.id == recipe.jobs[0])
    start = run.at(0)
    assert start is not None
    shares = []
    for name in ("dpo", "sft"):
        reach = start[f"f_{name}/held_out"] - tables.results.optimum(name, 0).number
        shares.append(1 - recipe.values(f"gap_{name}")[0] / reach)
    assert kept.learned(recipe)[0] == pytest.approx(sum(shares) / 2)


def test_ties_and_habits_that_could_move_a_score_are_said(full: Path, tmp_path: Path) -> None:
    """8 of 100 questions tied against an error of 5 points; place 1 chosen in 60 %, right in 25 %: 35 points, over 2 · 5."""
    own = tmp_path / full.name
    shutil.copytree(full, own)
    path = own / "jobs" / "questions-base" / "scores.json"
    scores = json.loads(path.read_text(encoding="utf-8"))
    assert present.choice_notes(Findings(Results(find_suites(own)[0]))) == []
    scores["mmlu/acc"] |= {"n": 100, "standard_error": 0.05, "ties": 8, "chosen": [60, 40], "right": [25, 75]}
    path.write_text(json.dumps(scores), encoding="utf-8")
    assert present.choice_notes(Findings(Results(find_suites(own)[0]))) == [
        "Ties of the best choices could move a score by more than its standard error: base (8.0 % of the questions).",
        "One place is chosen far more often than it is right: base (place 1 in 60 %, right in 25 %).",
    ]
