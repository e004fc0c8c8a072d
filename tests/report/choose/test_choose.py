"""The chooser on records whose figures can be worked out by hand (see conftest.py).

mmlu over the seeds 0, 1, 2 is 50 + 2 × place + 0.1 %, win rate 51 + 5 × place %, with the place of a method in
(sequential, mix, alright, maxright); seconds are 10.1, 15.15, 10.302, 11.11. The base model has 50 % and 40 %.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from bench.errors import InputError
from bench.records.record import append_jsonl, read_json, write_json
from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.choose.choose import choose, choose_all


def tables(folder: Path) -> Findings:
    (record,) = find_suites(folder)
    return Findings(Results(record))


def test_the_best_recipe_that_meets_the_conditions_is_chosen(full: Path) -> None:
    """≥ 53 %: alright (54.1) and maxright (56.1). ≤ 1.04 × 10.1 = 10.504 s: alright, whose three λ have 61 % each.

    Level recipes stand by ideal distance, which is smallest at 0.5, then 0.25.
    """
    choice = choose(tables(full), "mmlu >= base + 3 and seconds <= 1.04 * sequential, maximize win_rate")
    assert choice.best is not None
    assert choice.runner_up is not None
    assert (choice.best.name, choice.runner_up.name) == ("alright at λ = 0.5", "alright at λ = 0.25")
    assert choice.best.goal == pytest.approx(61.0)
    assert len(choice.allowed) == 3
    assert "level with it: alright at λ = 0.25" in choice.headline
    failed = {one.name: one.failed for one in choice.candidates if one.failed}
    assert failed["maxright at λ = 0.5"] == ("seconds <= 1.04 * sequential (11.11 <= 10.50)",)
    assert failed["sequential at λ = 0.5"] == ("mmlu >= base + 3 (50.10 >= 53.00)",)
    assert failed["mix at λ = 0.5"] == (
        "mmlu >= base + 3 (52.10 >= 53.00)",
        "seconds <= 1.04 * sequential (15.15 <= 10.50)",
    )
    assert choice.best.jobs == {seed: f"alright-l0.5-s{seed}" for seed in range(3)}


def test_the_same_side_of_every_draw_is_certain(full: Path) -> None:
    """MAXRIGHT at 0.5 has half of ALRIGHT's distance in every seed, so also in every draw of seeds."""
    choice = choose(tables(full), "minimize ideal_distance")
    assert choice.best is not None
    assert (choice.best.name, choice.best.goal) == ("maxright at λ = 0.5", pytest.approx(0.05))
    assert choice.best.wins == 1.0
    assert choice.resampled == ("3 seeds",)
    assert choice.draws == 2000
    assert any("rough guide" in note for note in choice.notes)


def test_what_the_recipes_are_held_against(full: Path) -> None:
    """π_ref is seed 0's SFT optimum: mmlu 52 %, f_SFT 1.0. The base model is where runs start: f_DPO 0.7, f_SFT 3.

    The base's DPO gap is 0.7 − (0.2 + 0.01 seed), 0.49 in the mean; Sequential's at λ = 0.25 is 0.6 × 0.5 × 2 = 0.6.
    """
    made = tables(full)
    assert len(choose(made, "mmlu > reference, maximize mmlu").allowed) == 9  # all but sequential's 50.1
    assert len(choose(made, "f_sft > reference, maximize mmlu").allowed) == 12
    assert len(choose(made, "f_dpo < base and f_sft < base, maximize mmlu").allowed) == 10
    failed = {one.name: one.failed[0] for one in choose(made, "gap_dpo < base, maximize mmlu").candidates if one.failed}
    assert failed == {
        "sequential at λ = 0.25": "gap_dpo < base (0.6000 < 0.4900)",
        "sequential at λ = 0.75": "gap_dpo < base (0.9000 < 0.4900)",
    }


def test_units_are_percent_and_gibibytes(full: Path) -> None:
    """512 MiB are 0.5 GiB; accuracy is mmlu, the only task; λ has its own name."""
    choice = choose(tables(full), "memory == 0.5 and lambda <= 0.5 and accuracy > 50, maximize tokens / steps")
    assert len(choice.allowed) == 8
    assert choice.units == {"memory": "GiB", "lambda": "", "accuracy": "%", "tokens": "tokens", "steps": "steps"}
    assert choice.best is not None
    assert choice.best.goal == 10.0


def test_a_name_may_be_written_as_tables_show_it(full: Path) -> None:
    """mmlu/acc is one figure, like mmlu_acc; with spaces it is mmlu over a figure acc, which is not there."""
    made = tables(full)
    written = choose(made, "mmlu/acc >= base + 3 and win_rate/rule > 0, maximize win_rate/rule - 0*mmlu/acc")
    plain = choose(made, "mmlu_acc >= base + 3 and win_rate > 0, maximize win_rate - 0 * mmlu_acc")
    assert [one.name for one in written.allowed] == [one.name for one in plain.allowed]
    assert written.units == {"mmlu/acc": "%", "win_rate/rule": "%"}
    notes = [note for note in written.notes if "single outcomes" in note]  # of both scores, for one reason
    assert notes == [
        "mmlu/acc, win_rate/rule: the single outcomes of maxright-l0.5-s0 do not add up to its score",
    ]
    with pytest.raises(InputError, match="unknown figure 'acc'"):
        choose(made, "maximize mmlu / acc")
    with pytest.raises(InputError, match="unknown figure 'accs'"):
        choose(made, "maximize mmlu/accs")


def test_a_missing_figure_excludes_with_its_reason(full: Path) -> None:
    choice = choose(tables(full), "energy < 5, maximize mmlu")
    assert choice.best is None
    assert choice.headline == "no recipe of 12 meets the conditions; 12 could not be checked."
    assert choice.candidates[0].unknown == ("energy: no energy counter",)
    choice = choose(tables(full), "seconds < base, maximize mmlu")
    assert choice.candidates[0].unknown == ("seconds of base: the base model takes no training",)
    choice = choose(tables(full), "maximize mmlu / (win_rate - win_rate)")
    assert choice.candidates[0].unknown == ("the expression divides by 0",)


def test_names_that_are_not_known_are_refused_with_the_nearest(full: Path) -> None:
    with pytest.raises(InputError, match=r"column 14: unknown figure 'mmul'; did you mean 'mmlu'\?"):
        choose(tables(full), "  maximize   mmul")


def test_a_seed_without_a_figure_is_left_out_and_said(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    """Without seed 2 MAXRIGHT's win rate at 0.5 is the mean of 65 and 66."""
    folder = fill_suite(new_writer(tmp_path, "made"), methods=["maxright"], lambdas=[0.5])
    (folder / "jobs/judged-maxright-l0.5-s2/status.json").unlink()
    choice = choose(tables(folder), "maximize win_rate")
    assert choice.best is not None
    assert choice.best.goal == 65.5
    assert "maxright at λ = 0.5: 2 of 3 seeds have every figure" in choice.notes


def test_costs_of_different_machines_are_not_ranked(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    folder = fill_suite(new_writer(tmp_path, "made"), methods=["sequential", "mix"], lambdas=[0.5], seeds=[0])
    path = folder / "jobs/mix-l0.5-s0/spec.json"
    spec = read_json(path)
    spec["environment"]["hardware"]["cpu"] = "another"
    write_json(path, spec)
    for text in ("minimize seconds", "seconds < 2 * sequential, maximize mmlu"):
        choice = choose(tables(folder), text)
        assert choice.best is not None
        assert choice.best.method == "sequential"
        (unknown,) = (one.unknown for one in choice.candidates if one.unknown)
        assert "not comparable: mix-l0.5-s0 was made on other hardware or with other workers" in unknown[0]
    assert len(choose(tables(folder), "maximize mmlu").allowed) == 2


def test_a_suite_without_a_complete_run_has_nothing_to_choose_from(new_writer: Any, tmp_path: Path) -> None:
    bare = new_writer(tmp_path, "made")
    bare.behind([0])
    choice = choose(tables(bare.finish(missing=["mix-l0.5-s0"])), "maximize ideal_distance")
    assert (choice.headline, choice.notes, choice.best) == ("no recipe has a complete run yet.", (), None)


# ---- redraws ---------------------------------------------------------------------------------------------------------


def two(
    new_writer: Any, fill_suite: Any, root: Path, seeds: Sequence[int], win_rates: Mapping[str, Sequence[float]]
) -> Path:
    """Write two recipes with win rates by seed."""
    folder: Path = fill_suite(new_writer(root, "made"), methods=list(win_rates), lambdas=[0.5], seeds=seeds)
    for method, values in win_rates.items():
        for seed, value in zip(seeds, values, strict=True):
            path = folder / f"jobs/judged-{method}-l0.5-s{seed}/scores.json"
            write_json(path, {"win_rate/rule": {"value": value, "n": 10, "standard_error": 1.0}})
    return folder


def test_shares_over_seeds(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    """With k draws of seed 0, mix has k and alright 2 (3 − k) / 3: mix leads from k = 2 on, 7 of 27 draws.

    Drawing each recipe's seeds apart would give 225 of 729, 0.31.
    """
    values = {"mix": [3.0, 0.0, 0.0], "alright": [0.0, 2.0, 2.0]}
    choice = choose(tables(two(new_writer, fill_suite, tmp_path, (0, 1, 2), values)), "maximize win_rate")
    assert choice.best is not None
    assert choice.runner_up is not None
    assert choice.best.method == "alright"
    assert choice.runner_up.wins == pytest.approx(7 / 27, abs=0.03)  # three standard errors of 2,000 draws
    assert choice.best.wins + choice.runner_up.wins == pytest.approx(1)
    again = choose(tables(tmp_path / "made"), "maximize win_rate")
    assert again.as_json() == choice.as_json()


def test_draws_in_which_nobody_may_be_chosen_are_counted(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    """win_rate > 1 holds where seed 0 is drawn at all: 1 − (2/3)³ = 19/27."""
    folder = two(new_writer, fill_suite, tmp_path, (0, 1, 2), {"mix": [4.5, 0.0, 0.0]})
    choice = choose(tables(folder), "win_rate > 1, maximize win_rate")
    assert choice.best is not None
    assert choice.best.wins == pytest.approx(19 / 27, abs=0.03)
    assert choice.nobody == pytest.approx(8 / 27, abs=0.03)


def judged(folder: Path, outcomes: Mapping[str, Sequence[float]]) -> None:
    for method, values in outcomes.items():
        job = folder / f"jobs/judged-{method}-l0.5-s0"
        append_jsonl(job / "samples.jsonl", [{"id": place, "preference": value} for place, value in enumerate(values)])


def test_pairs_are_drawn_alike_for_both_recipes(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    """Mix wins six pairs of ten and ALRIGHT the other four: with k of mix's among ten drawn, k > 5 chooses mix."""
    wins = [1.0] * 6 + [0.0] * 4
    losses = [1 - value for value in wins]
    folder = two(new_writer, fill_suite, tmp_path, (0,), {"mix": [60.0], "alright": [40.0]})
    judged(folder, {"mix": wins, "alright": losses})
    choice = choose(tables(folder), "maximize win_rate")
    assert choice.best is not None
    expected = binom.sf(5, 10, 0.6) + 0.5 * binom.pmf(5, 10, 0.6)
    assert choice.best.wins == pytest.approx(expected, abs=0.03)
    assert choice.resampled == ("10 judged pairs of win_rate/rule",)
    assert any(note.startswith("1 seed, fewer than 3") for note in choice.notes)


def test_outcomes_that_do_not_add_up_are_not_drawn(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    folder = two(new_writer, fill_suite, tmp_path, (0,), {"mix": [60.0], "alright": [40.0]})
    judged(folder, {"mix": [1.0], "alright": [0.0]})
    choice = choose(tables(folder), "maximize win_rate")
    assert choice.draws == 0
    assert choice.best is not None
    assert math.isnan(choice.best.wins)
    assert any("no share can be given" in note for note in choice.notes)
    assert choice.as_json()["candidates"][0]["wins"] is None


def test_subjects_are_drawn_whole(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    """Mix is right in 7 subjects of 12, five questions each, ALRIGHT in the other 5: k > 6 of 12 chooses mix.

    That is 0.72; question by question mix would be chosen in 0.9 of the draws.
    """
    folder = two(new_writer, fill_suite, tmp_path, (0,), {"mix": [60.0], "alright": [40.0]})
    for method, first in (("mix", 1), ("alright", 0)):
        job = folder / f"jobs/questions-{method}-l0.5-s0"
        rows = [
            {"subject": f"s{subject}", "id": place, "correct": first if subject < 7 else 1 - first}
            for subject in range(12)
            for place in range(5)
        ]
        share = sum(row["correct"] for row in rows) / 60
        write_json(job / "scores.json", {"mmlu/acc": {"value": share, "n": 60, "standard_error": 0.1}})
        (job / "samples.jsonl").unlink(missing_ok=True)
        append_jsonl(job / "samples.jsonl", rows)
    choice = choose(tables(folder), "maximize mmlu")
    assert choice.best is not None
    assert choice.best.method == "mix"
    expected = binom.sf(6, 12, 7 / 12) + 0.5 * binom.pmf(6, 12, 7 / 12)
    assert choice.best.wins == pytest.approx(expected, abs=0.03)
    assert choice.resampled == ("12 subjects of mmlu, each with all its questions (60 in all)",)


# ---- a folder of results and the command -----------------------------------------------------------------------------


def test_a_suite_without_the_figure_stands_beside_the_others(new_writer: Any, fill_suite: Any, tmp_path: Path) -> None:
    fill_suite(new_writer(tmp_path, "first"), methods=["mix"], lambdas=[0.5])
    bare = new_writer(tmp_path, "second")
    bare.behind([0])
    bare.jobs = [one for one in bare.jobs if not one.startswith(("questions", "judged"))]
    bare.finish()
    found = {one.suite: one for one in choose_all(tmp_path, "maximize mmlu")}
    assert found["first"].choice is not None
    assert found["second"].choice is None
    assert "unknown figure 'mmlu'" in found["second"].reason
    with pytest.raises(InputError, match="unknown figure 'colour'"):
        choose_all(tmp_path, "maximize colour")


def test_the_committed_records_can_be_chosen_from(tmp_path: Path) -> None:
    """Against the recipes' own numbers: among those that meet the conditions nobody has a higher win rate."""
    archive = Path(__file__).parents[3] / "results" / "quickstart.bench"
    made = tables(archive)
    choice = choose(made, "accuracy >= base - 1, maximize win_rate")
    base = made.results.score("base", "world_questions/acc").number
    allowed = {
        recipe.name: recipe.estimate("win_rate/rule").mean
        for recipe in made.ranked
        if recipe.estimate("world_questions/acc").mean >= base - 0.01
    }
    assert choice.best is not None
    assert {one.name for one in choice.allowed} == set(allowed)
    assert choice.best.goal == pytest.approx(max(allowed.values()))
    assert len(choice.resampled) == 3


def bench(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_shows_and_keeps_the_choice(
    new_writer: Callable[..., Any], fill_suite: Any, tmp_path: Path
) -> None:
    folder = fill_suite(new_writer(tmp_path, "made"), methods=["mix", "alright"], lambdas=[0.5])
    code, out, err = bench("report", str(folder), "--choose", "mmlu > base, maximize win_rate")
    assert (code, err) == (0, "")
    assert "alright at λ = 0.5 has the largest win_rate" in " ".join(out.split())
    kept = json.loads((folder / "choice.json").read_text())
    assert (kept["schema"], kept["chosen"], kept["runner_up"]) == (1, "alright at λ = 0.5", "mix at λ = 0.5")
    (folder / "report.html").unlink()
    code, out, err = bench("report", str(folder), "--choose", "mmlu > base maximize win_rate")
    assert (code, out) == (2, "")
    assert err.startswith("bench: --choose, column 13: a comma and maximize or minimize are expected here")
    assert err.count("\n") == 1
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("win_rate >= 0.5, maximize win_rate", "win_rate is in percent, so this is 0.5 %: did you mean 50?"),
        ("not (win_rate < .4), minimize seconds", "win_rate is in percent, so this is 0.4 %: did you mean 40?"),
        ("win_rate >= 40 %, maximize win_rate", "percentages are written as a number alone, such as mmlu >= 40"),
        ("win_rate >= 40, minimise seconds", "did you mean 'minimize'?"),
        ("maximise win_rate", "did you mean 'maximize'?"),
    ],
)
def test_what_was_meant_otherwise_is_asked(full: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        choose(tables(full), text)


def test_a_share_of_a_policys_own_value_is_no_percentage(full: Path) -> None:
    assert choose(tables(full), "win_rate >= 0.5 * base, maximize win_rate").candidates
