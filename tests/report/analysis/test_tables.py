"""Figures derived from records, against the values the records were made to give."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import append_jsonl, read_json, write_json
from bench.records.suite_record import find_suites
from report.analysis import recipe_verdicts
from report.analysis.findings import Findings
from report.analysis.fronts import fronts
from report.analysis.load import Results
from report.analysis.tables import RecipeResults, Tables
from report.page import present, report_json
from report.render.document import Table

METHODS = ("sequential", "mix", "alright", "maxright")


def tables(folder: Path) -> Findings:
    return Findings(Results(find_suites(folder)[0]))


def recipe(made: Tables, method: str, lambda_dpo: float) -> RecipeResults:
    return next(one for one in made.recipes if one.key == (method, lambda_dpo))


def cell(table: Table, row: str, column: str) -> str:
    place = [one.title for one in table.columns].index(column)
    return next(one.cells[place].text for one in table.rows if one.cells[0].text == row)


def test_gaps_and_distance_of_one_run(full: Path) -> None:
    """Mix, λ 0.5, seed 2: distance 0.15 · 1 · 1.1 = 0.165; gaps 3/5 and 4/5 of it."""
    figures = recipe(tables(full), "mix", 0.5).figures[2]
    assert figures["ideal_distance"].number == pytest.approx(0.165)
    assert figures["gap_dpo"].number == pytest.approx(0.099)
    assert figures["gap_sft"].number == pytest.approx(0.132)


def test_mean_and_spread_over_seeds(full: Path) -> None:
    """MAXRIGHT, λ 0.25: 0.1 · (0.9, 1, 1.1): mean 0.1, sd 0.01."""
    one = recipe(tables(full), "maxright", 0.25).estimate("ideal_distance")
    assert (one.mean, one.sd, one.n) == (pytest.approx(0.1), pytest.approx(0.01), 3)


def spread_out(new_writer: Any, fill_suite: Any, tmp_path: Path) -> Path:
    """Write a suite in which mix has accuracies of 2, 50 and 98 %, and seconds of 1, 10 and 100."""
    folder: Path = fill_suite(new_writer(tmp_path, "made"), methods=["sequential", "mix"], lambdas=[0.5])
    for seed, (accuracy, seconds) in enumerate(((0.02, 1.0), (0.5, 10.0), (0.98, 100.0))):
        (job,) = (one.name for one in (folder / "jobs").glob(f"*mix-l0.5-s{seed}") if "acc" in _scores(one))
        scores = read_json(folder / "jobs" / job / "scores.json")
        scores["mmlu/acc"]["value"] = accuracy
        write_json(folder / "jobs" / job / "scores.json", scores)
        path = folder / "jobs" / f"mix-l0.5-s{seed}" / "measurements.json"
        measurements = read_json(path)
        measurements["training_seconds"]["value"] = seconds
        write_json(path, measurements)
    return folder


def _scores(job: Path) -> str:
    return (job / "scores.json").read_text() if (job / "scores.json").exists() else ""


def test_no_interval_leaves_its_figures_range(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    """Accuracy 50 ± 119 % ends at 0 and 100 %; seconds 37 ± 136 at 0.

    Sequential's accuracies are 50, 50.1 and 50.2 %, so differences are within ±100 points, as those of any two shares.
    """
    made = tables(spread_out(new_writer, fill_suite, tmp_path))
    mix = recipe(made, "mix", 0.5)
    accuracy, seconds = mix.estimate("mmlu/acc"), mix.estimate("training_seconds")
    assert (accuracy.low, accuracy.high) == (0.0, 1.0)
    assert (seconds.low, seconds.high > 100) == (0.0, True)
    difference = made.difference(mix, recipe(made, "sequential", 0.5), "mmlu/acc")
    assert (difference.low, difference.high) == (-1.0, 1.0)
    (row,) = recipe_verdicts.frame(made, ["mmlu/acc"]).to_dict("records")
    assert (row["low"], row["high"]) == (-1.0, 1.0)
    for front in fronts(made):
        assert front.hypervolume.low >= 0 or not front.hypervolume.has_interval
    written = json.loads(json.dumps(report_json._recipe(mix)))["figures"]
    assert (written["mmlu/acc"]["low"], written["mmlu/acc"]["high"]) == (0.0, 1.0)
    assert written["training_seconds"]["low"] == 0.0


def test_recipes_are_ranked_by_mean_ideal_distance(full: Path) -> None:
    """λ multiplies distances by 1 (0.5), 2 (0.25), 3 (0.75): MAXRIGHT's are 0.05, 0.1, 0.15, ALRIGHT's first is 0.1."""
    ranked = [one.key for one in tables(full).ranked]
    assert ranked[0] == ("maxright", 0.5)
    assert set(ranked[1:3]) == {("alright", 0.5), ("maxright", 0.25)}
    assert ranked[-1] == ("sequential", 0.75)


def test_increases_are_against_the_sequential_of_the_same_lambda_and_seed(full: Path) -> None:
    """Mix takes 15 s where Sequential takes 10, in every seed: +50 %, sd 0. Both use 150 % of the CPU: +0 %."""
    made = tables(full)
    runtime = recipe(made, "mix", 0.75).estimate("runtime_increase_percent")
    assert (runtime.mean, runtime.sd) == (pytest.approx(50.0), pytest.approx(0.0, abs=1e-9))
    assert recipe(made, "sequential", 0.75).estimate("runtime_increase_percent").mean == 0.0
    assert made.utilization == "cpu_utilization_percent"
    assert recipe(made, "mix", 0.75).estimate("utilization_increase_percent").mean == 0.0


def test_all_in_runtime_counts_each_needed_job_once(full: Path) -> None:
    """Seed 0: Mix needs π_ref (8 s) beside its own 15 s. MAXRIGHT needs both optima (8 s each), one of which is π_ref: 11 + 16.

    Seed 1: MAXRIGHT's optima are not π_ref, so 11.11 + 8 + 16.
    """
    made = tables(full)
    assert recipe(made, "mix", 0.5).figures[0]["all_in_seconds"].number == pytest.approx(23.0)
    assert recipe(made, "maxright", 0.5).figures[0]["all_in_seconds"].number == pytest.approx(27.0)
    assert recipe(made, "maxright", 0.5).figures[1]["all_in_seconds"].number == pytest.approx(35.11)


def test_costs_on_unequal_machines_are_not_compared(writer: Callable[..., Any]) -> None:
    made = writer()
    made.behind((0,))
    made.run("sequential", 0.5, 0)
    job = made.run("mix", 0.5, 0)
    path = made.finish() / "jobs" / job / "spec.json"
    spec = read_json(path)
    spec["environment"]["workers"] = 2
    write_json(path, spec)
    increase = recipe(tables(made.folder), "mix", 0.5).figures[0]["runtime_increase_percent"]
    assert increase.value is None
    assert "other hardware or with other workers" in increase.reason


def test_forgetting_is_measured_from_the_phase_change(full: Path) -> None:
    """SFT goes first and ends 0.3 above its value at the change; λ 0.25, seed 1: ends at 1.02 + 0.8 · 1.0 = 1.82."""
    frame = tables(full).forgetting
    row = frame[(frame["lambda_dpo"] == 0.25) & (frame["seed"] == 1)].iloc[0]
    assert len(frame) == 9
    assert (row["objective"], row["change_step"]) == ("sft", 75)
    assert row["end"] == pytest.approx(1.82)
    assert row["undone"] == pytest.approx(0.3)
    assert row["share"] == pytest.approx(0.3 / (3.0 - 1.52))


def test_a_negative_gap_is_shown_as_it_is(writer: Callable[..., Any]) -> None:
    """The run ends 0.1 below f*_SFT = 1.0, so the best value seen is 0.9: its gap is −0.1, and 0 against the best seen."""
    made = writer()
    made.behind((0,))
    labels = {"method": "mix", "lambda_dpo": 0.5, "seed": 0, "phase_steps": {"dpo": 50, "sft": 50}}
    made.train("mix-l0.5-s0", ["run"], labels, {"dpo": 0.5, "sft": 0.9}, 1.0)
    figures = recipe(tables(made.finish()), "mix", 0.5).figures[0]
    assert figures["gap_sft"].number == pytest.approx(-0.1)
    assert figures["best_seen_gap_sft"].number == pytest.approx(0.0)
    shown = present.best_seen(tables(made.folder))
    assert shown is not None
    assert "adds nothing to the ideal distance" in shown.notes[0]
    assert cell(shown, "mix at λ = 0.5", "SFT gap (nats)") == "−0.100"


def test_no_gap_is_negative_so_no_second_table(full: Path) -> None:
    assert present.best_seen(tables(full)) is None


def test_without_an_optimum_the_gap_has_a_reason(writer: Callable[..., Any]) -> None:
    made = writer()
    made.run("mix", 0.5, 0)
    figures = recipe(tables(made.finish()), "mix", 0.5).figures[0]
    assert figures["ideal_distance"].value is None
    assert "f*_DPO of seed 0" in figures["ideal_distance"].reason


def test_f_dpo_of_a_run_before_the_reference_is_filled_in(writer: Callable[..., Any]) -> None:
    """Policy log-probabilities equal to the reference's give −log σ(0) = log 2."""
    made = writer()
    made.behind((0,))
    optimum = made.folder / "jobs" / "sft-optimum-s0"
    scores = read_json(optimum / "scores.json")
    scores["f_dpo/held_out"] = {"value": None, "reason": "no reference yet"}
    write_json(optimum / "scores.json", scores)
    rows = [{key: value for key, value in row.items() if key != "f_dpo/held_out"} for row in read_rows(optimum)]
    (optimum / "trajectory.jsonl").unlink()
    append_jsonl(optimum / "trajectory.jsonl", rows)
    append_jsonl(
        optimum / "evaluation_logps.jsonl", [{"step": 100, "split": "held_out", "chosen": [-3.0], "rejected": [-4.0]}]
    )
    logps = {"held_out": {"chosen": [-3.0], "rejected": [-4.0]}, "train": {"chosen": [], "rejected": []}}
    write_json(made.folder / "jobs" / "reference-logps" / "reference_logps.json", logps)
    run = Results(find_suites(made.finish())[0]).optima["sft", 0]
    assert run.objective("f_dpo/held_out").number == pytest.approx(math.log(2))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    from bench.records.record import read_jsonl

    return list(read_jsonl(folder / "trajectory.jsonl"))


def test_leaderboard_rows_and_context(full: Path) -> None:
    """Every recipe, then DPO alone, SFT alone, the reference and the base."""
    made = tables(full)
    table = present.leaderboard(made)
    assert [row.kind for row in table.rows] == ["best", *[""] * 11, *["context"] * 4]
    assert cell(table, "maxright at λ = 0.5", "Ideal distance (nats)") == "0.050 ± 0.005"
    assert cell(table, "base model", "MMLU (%)") == "50.0"
    assert cell(table, "base model", "Win rate (%)") == "40.0"
    assert cell(table, "reference (π_ref)", "MMLU (%)") == "52.0"
    assert cell(table, "mix at λ = 0.5", "Runtime (%)") == "+50.0 ± 0.0"
    assert all(one.link == row.cells[0].link for row in table.rows[:12] for one in row.cells)


def test_table_one_has_a_row_a_method_and_a_column_a_lambda(full: Path) -> None:
    """MAXRIGHT's accuracies are 56.0, 56.1, 56.2 %: 56.1 ± 0.1; its win rates 65, 66, 67 %."""
    table = present.table_one(tables(full))
    assert table is not None
    assert [row.cells[0].text for row in table.rows][:4] == list(METHODS)
    assert [column.title for column in table.columns[1:]] == ["λ = 0.25", "λ = 0.5", "λ = 0.75"] * 2
    assert table.rows[3].cells[1].text == "56.1 ± 0.1"
    assert table.rows[3].cells[4].text == "66.0 ± 1.0"


def test_cost_that_is_not_measured_says_why(full: Path) -> None:
    """A figure that no run has takes no column: it stands below, with its reason."""
    table = present.cost(tables(full))
    assert "GPU utilization (%)" not in [column.title for column in table.columns]
    assert "GPU utilization, GPU memory used: missing: no GPU in this machine." in table.notes
    assert cell(table, "mix at λ = 0.5", "Peak memory (MiB)").startswith("512")


def test_figures_from_a_shared_machine_are_marked(writer: Callable[..., Any]) -> None:
    made = writer()
    made.behind((0,))
    job = made.run("sequential", 0.5, 0)
    path = made.finish() / "jobs" / job / "measurements.json"
    measurements = read_json(path)
    measurements["training_seconds"]["shared_machine"] = True
    write_json(path, measurements)
    table = present.cost(tables(made.folder))
    assert cell(table, "sequential at λ = 0.5", "Training (s)") == "10.0†"
    assert any(note.startswith("† measured while other workers") for note in table.notes)


def test_both_splits(full: Path) -> None:
    """Training values were written 0.05 below the held-out ones; Mix, λ 0.5: f_DPO 0.21 + 0.09 = 0.30 on average."""
    table = present.both_splits(tables(full))
    assert cell(table, "mix at λ = 0.5", "f_DPO held-out (nats)").startswith("0.300")
    assert cell(table, "mix at λ = 0.5", "f_DPO train (nats)").startswith("0.250")


def test_two_judges_get_a_column_each_and_a_mark(writer: Callable[..., Any]) -> None:
    made = writer()
    made.behind((0,))
    job = made.run("mix", 0.5, 0)
    folder = made.job("judged-again", "judge", {"of": job, "judge": "other"})
    write_json(folder / "scores.json", {"win_rate/other": {"value": 12.0, "n": 5, "standard_error": 1.0}})
    made.finish()
    notes = present.judge_notes(tables(made.folder).results)
    assert notes == ["Different judges: rule, other. Their win rates do not compare with each other."]


def test_training_rows_are_the_split_where_the_suite_says_so(writer: Callable[..., Any]) -> None:
    """With evaluation_split train_head, both f* and the run are read 0.05 lower, so the gap stays: 0.6 · 0.135 = 0.081."""
    made = writer(data={"evaluation_split": "train_head"})
    made.behind((0,))
    made.run("mix", 0.5, 0)
    derived = tables(made.finish())
    assert derived.results.split == "train"
    assert recipe(derived, "mix", 0.5).figures[0]["gap_dpo"].number == pytest.approx(0.081)


def test_a_utilization_inside_the_others_samples_is_no_increase(writer: Callable[..., Any]) -> None:
    """Medians of 27 and 24 whose middle halves are 17 to 35 and 18 to 33: nothing to be seen. 27 against 10 to 20 is."""
    made = writer()
    made.behind((0,))
    jobs = {name: made.folder / "jobs" / made.run(name, 0.5, 0) for name in ("sequential", "mix")}
    folder = made.finish()

    def with_samples(job: Path, value: float, quartiles: list[float]) -> None:
        content = json.loads((job / "measurements.json").read_text(encoding="utf-8"))
        content["cpu_utilization_percent"] = {"value": value, "unit": "%", "quartiles": quartiles}
        (job / "measurements.json").write_text(json.dumps(content), encoding="utf-8")

    with_samples(jobs["mix"], 27.0, [17.0, 35.0])
    with_samples(jobs["sequential"], 24.0, [18.0, 33.0])
    mix = recipe(tables(folder), "mix", 0.5)
    assert "no increase to be seen" in mix.reason("utilization_increase_percent")
    assert mix.quartiles("cpu_utilization_percent") == (17.0, 35.0)
    assert recipe(tables(folder), "sequential", 0.5).estimate("utilization_increase_percent").mean == 0.0
    with_samples(jobs["sequential"], 15.0, [10.0, 20.0])
    increase = recipe(tables(folder), "mix", 0.5).estimate("utilization_increase_percent")
    assert increase.mean == pytest.approx(80.0)
