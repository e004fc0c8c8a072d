"""Fronts over λ and figures derived from a run's others, against the values records were made to give; and committed ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import append_jsonl, write_json
from bench.records.suite_record import find_suites
from report.analysis import checkpoints, fronts
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.tables import RecipeResults

COMMITTED = Path(__file__).parents[3] / "results"


def tables(folder: Path) -> Findings:
    return Findings(Results(find_suites(folder)[0]))


def recipe(made: Findings, method: str, lambda_dpo: float) -> RecipeResults:
    return next(one for one in made.recipes if one.key == (method, lambda_dpo))


# ---- derived figures -------------------------------------------------------------------------------------------------


def test_gaps_in_shares(full: Path) -> None:
    """Mix, λ 0.5, seed 2: gaps 0.099 of 0.7 − 0.22 and 0.132 of 3 − 1.04."""
    figures = recipe(tables(full), "mix", 0.5).figures[2]
    dpo, sft = 0.099 / 0.48, 0.132 / 1.96
    assert figures["relative_gap_dpo"].number == pytest.approx(dpo)
    assert figures["relative_gap_sft"].number == pytest.approx(sft)
    assert figures["relative_ideal_distance"].number == pytest.approx(math.hypot(dpo, sft))


def test_cost_of_a_step_and_a_token(full: Path) -> None:
    """Mix, seed 2: 15 · 1.02 seconds over 100 steps and 1,000 tokens; energy was not measured."""
    figures = recipe(tables(full), "mix", 0.5).figures[2]
    assert figures["seconds_per_step"].number == pytest.approx(0.153)
    assert figures["seconds_per_token"].number == pytest.approx(0.0153)
    assert figures["joules_per_token"].reason == "no energy counter"


def test_share_of_the_matrix_rate(full: Path, tmp_path: Path) -> None:
    """Mix, λ 0.5, seed 2: 306 FLOP in 15.3 s are 20 a second, a quarter of the device's 80; others did not count them."""
    own = Path(shutil.copytree(full, tmp_path / full.name))
    for job in own.rglob("measurements.json"):
        figures = json.loads(job.read_text())
        if "mix" in job.parent.name:
            figures["model_flops"] = {"value": 306.0, "unit": "FLOP"}
            figures["matrix_flops_per_second"] = {"value": 80.0, "unit": "FLOP/s"}
            write_json(job, figures)
    made = tables(own)
    assert recipe(made, "mix", 0.5).figures[2]["matrix_rate_share"].number == pytest.approx(0.25)
    assert "matrix_rate_share" not in recipe(made, "alright", 0.5).figures[2]


def test_distance_at_equal_tokens(new_writer: type[Any], tmp_path: Path) -> None:
    """ALRIGHT ends at 500 tokens, half of Mix's, whose straight line from (0.7, 3.0) to f* = (0.2, 1.0) is then half way.

    Mix's gaps there are 0.25 and 1.0; ALRIGHT's are those of its end, 0.5 − 0.2 and 1.4 − 1.0.
    """
    writer = new_writer(tmp_path, "tokens")
    writer.behind((0,))
    for method in ("mix", "alright"):
        labels = {"method": method, "lambda_dpo": 0.5, "seed": 0, "phase_steps": {"dpo": 50, "sft": 50}}
        writer.train(f"{method}-s0", ["run"], labels, {"dpo": 0.2, "sft": 1.0}, 1.0)
    short = writer.folder / "jobs" / "alright-s0" / "trajectory.jsonl"
    short.unlink()
    rows = [{"step": 0, "tokens": 0, "f_dpo/held_out": 0.7, "f_sft/held_out": 3.0}]
    rows += [{"step": 50, "tokens": 250, "f_dpo/held_out": 0.5, "f_sft/held_out": 2.0}]
    append_jsonl(short, [*rows, {"step": 100, "tokens": 500, "f_dpo/held_out": 0.5, "f_sft/held_out": 1.4}])
    made = tables(writer.finish())
    assert made.equal_tokens.value == 500
    at = {
        name: recipe(made, name, 0.5).figures[0]["ideal_distance_at_equal_tokens"].number for name in ("mix", "alright")
    }
    assert at["mix"] == pytest.approx(math.hypot(0.25, 1.0))
    assert at["alright"] == pytest.approx(0.5)


# ---- fronts ----------------------------------------------------------------------------------------------------------


def test_hypervolume_and_spread_of_a_method(full: Path) -> None:
    """MAXRIGHT's ends lie on a line, so that λ = 0.5 dominates: f* + (0.6, 0.8) · 0.05 · (0.9, 1, 1.1).

    The reference is the worst of θ_1 (0.7, 3.0) and the optima's ends (0.8 and 3.1): (0.8, 3.1). Areas: 0.573 · 2.064,
    0.56 · 2.04, 0.547 · 2.016. The box reaches down to the mean optima (0.21, 1.02): 0.59 · 2.08. From λ = 0.5 to 0.75
    the distance grows by 0.1 · (0.9, 1, 1.1).
    """
    made = tables(full)
    assert fronts.box(made).reference == (pytest.approx(0.8), pytest.approx(3.1))
    front = next(one for one in made.fronts if one.method == "maxright")
    areas = [0.573 * 2.064, 0.56 * 2.04, 0.547 * 2.016]
    assert front.hypervolume.mean == pytest.approx(sum(areas) / 3)
    assert front.share.mean == pytest.approx(sum(areas) / 3 / (0.59 * 2.08))
    assert front.spread.mean == pytest.approx(0.1)
    assert front.hypervolume.has_interval
    assert list(fronts.frame(made)["method"]) == ["sequential", "mix", "alright", "maxright"]


def test_dominance_by_recipe(full: Path) -> None:
    """On one line from f*, the closest recipe dominates all others: MAXRIGHT at λ = 0.5, on every seed."""
    made = tables(full).dominance.set_index(["method", "lambda_dpo"])
    best = made.loc[("maxright", 0.5)]
    assert (best["on_front"], best["dominated_by"], best["seeds_on_front"], best["seeds"]) == (True, [], 3, 3)
    assert made["on_front"].sum() == 1
    assert "maxright at λ = 0.5" in made.loc[("mix", 0.25)]["dominated_by"]


def test_a_seed_that_lacks_a_lambda_is_on_no_front(new_writer: type[Any], tmp_path: Path) -> None:
    """Seed 1 has λ = 0.25 alone: the front is that of seed 0, without an interval."""
    writer = new_writer(tmp_path, "partial")
    writer.behind((0, 1))
    for lambda_dpo, seed in ((0.25, 0), (0.5, 0), (0.25, 1)):
        writer.run("mix", lambda_dpo, seed)
    (front,) = tables(writer.finish()).fronts
    assert list(front.points) == [0]
    assert not front.hypervolume.has_interval


def test_fronts_of_the_committed_quickstart() -> None:
    """Golden: Mix's front dominates most of the box; ALRIGHT at λ = 0.75 lies behind Mix at 0.5."""
    made = tables(COMMITTED / "quickstart.bench")
    share = {front.method: round(front.share.mean, 3) for front in made.fronts}
    assert share == {"sequential": 0.630, "mix": 0.727, "alright": 0.587, "maxright": 0.670}
    dominated = made.dominance.set_index(["method", "lambda_dpo"])["dominated_by"]
    assert dominated[("alright", 0.75)] == ["mix at λ = 0.5"]


# ---- two checkpoints -------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_quickstart_against_its_base() -> None:
    """Golden: Sequential at λ = 0.25, seed 0, gains 9 of 120 questions and loses none: 0.075, p = 2 / 2⁹."""
    made = checkpoints.against_base(tables(COMMITTED / "quickstart.bench"))
    one = made[(made["method"] == "sequential") & (made["lambda_dpo"] == 0.25) & (made["seed"] == 0)].iloc[0]
    assert (one["score"], one["only_first"], one["only_second"]) == ("world_questions/acc", 9, 0)
    assert one["difference"] == pytest.approx(9 / 120)
    assert one["p_value"] == pytest.approx(2 / 2**9)
    assert one["p_value"] < one["p_holm"] <= 1


def test_win_rates_of_matching_runs_are_paired_over_pairs() -> None:
    """Golden: differences of the win rates on record, one row a run and score: accuracy, win rate, and both divergences."""
    made = tables(COMMITTED / "quickstart.bench")
    found = checkpoints.against_sequential(made)
    assert len(found) == 9 * 3 * 4
    row = found[
        (found["method"] == "maxright") & (found["lambda_dpo"] == 0.75) & (found["score"] == "win_rate/rule")
    ].iloc[0]
    ours, theirs = (made.results.score(row[side], "win_rate/rule").number for side in ("first", "second"))
    assert row["difference"] == pytest.approx(ours - theirs)
    assert row["low"] < row["difference"] < row["high"]
    assert row["n"] == 48


def test_answers_that_do_not_make_the_score_are_not_used(new_writer: type[Any], tmp_path: Path) -> None:
    """The score is 0.5 and the only answer is right: something else than the plain mean was scored."""
    writer = new_writer(tmp_path, "odd")
    writer.evaluate("base", 0.5, 40.0)
    folder = writer.folder / "jobs" / "questions-base"
    (folder / "samples.jsonl").unlink()
    append_jsonl(folder / "samples.jsonl", [{"subject": "logic", "id": 0, "correct": 1}])
    results = Results(find_suites(writer.finish())[0])
    assert "not the plain mean" in checkpoints.answers(results, "base", "mmlu/acc").reason
    (writer.folder / "jobs" / "judged-base" / "samples.jsonl").unlink()
    assert "keeps no single answers" in checkpoints.answers(results, "base", "win_rate/rule").reason


def test_what_the_second_phase_undid_of_a_score(full: Path, new_writer: type[Any], tmp_path: Path) -> None:
    """Where the first phase is a whole optimum that was evaluated at 0.52, a run that ends at 0.5 lost 0.02."""
    assert set(tables(full).forgetting_scores["reason"]) == {
        "no checkpoint at the phase change was evaluated: no job ends at step None"
    }
    writer = new_writer(tmp_path, "phases")
    writer.behind((0,))
    labels = {"method": "sequential", "lambda_dpo": 0.5, "seed": 0, "phase_steps": {"dpo": 100, "sft": 100}}
    prefix = {"job": "sft-optimum-s0", "step": 100}
    writer.train("sequential-s0", ["run"], labels, {"dpo": 0.3, "sft": 1.1}, 1.0, prefix=prefix)
    writer.evaluate("sequential-s0", 0.5, 50.0)
    row = tables(writer.finish()).forgetting_scores.iloc[0]
    assert (row["order"], row["at_change"], row["end"]) == ("sft_dpo", 0.52, 0.5)
    assert row["undone"] == pytest.approx(-0.02)


def test_no_start_no_share(writer: Callable[..., Any]) -> None:
    """Without a point at step 0 nobody knows what training gained."""
    made = writer()
    job = made.run("mix", 0.5, 0)
    (made.folder / "jobs" / job / "trajectory.jsonl").unlink()
    write_json(made.folder / "jobs" / job / "measurements.json", {})
    figures = recipe(tables(made.finish()), "mix", 0.5).figures[0]
    assert "no run has f_dpo/held_out at step 0 on record" in figures["relative_gap_dpo"].reason
    assert figures["ideal_distance_at_equal_tokens"].value is None
    assert "training_seconds" in figures["seconds_per_step"].reason
