"""Two results folders compared: verdicts, what is refused, exit codes and what is written."""

from __future__ import annotations

import html
import io
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import InputError
from bench.records.record import read_json, write_json
from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.gate import Gate
from report.analysis.load import Results
from report.compare import compare, junit, view
from report.compare.compare import Comparison, Row

ROOT = Path(__file__).parents[3]


@pytest.fixture
def candidate(full: Path, tmp_path: Path) -> Path:
    """Copy the full suite: four methods × three λ × three seeds, to be changed."""
    shutil.copytree(full, tmp_path / "candidate" / "made", ignore=shutil.ignore_patterns("report*", "figures"))
    return tmp_path / "candidate" / "made"


def change(folder: Path, jobs: str, file: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a JSON file of every job whose id matches."""
    found = sorted(folder.glob(f"jobs/{jobs}/{file}"))
    assert found
    for path in found:
        content = read_json(path)
        edit(content)
        write_json(path, content)


def score(name: str, by: float) -> Callable[[dict[str, Any]], None]:
    """Add to a score."""

    def edit(content: dict[str, Any]) -> None:
        content[name]["value"] += by

    return edit


def row(made: Comparison, name: str, metric: str) -> Row:
    return next(one for one in made.suites[0].rows if (one.name, one.metric) == (name, metric))


def run(base: Path, other: Path, **gate: Any) -> Comparison:
    return compare.compare(base, other, Gate.model_validate(gate))


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_a_folder_against_itself_passes(full: Path) -> None:
    made = run(full, full)
    assert (made.exit_code, made.outcome) == (0, "no regression")
    assert {one.verdict for one in made.suites[0].rows} == {compare.IDENTICAL}
    assert "identical" in view.last_line(made)


def test_a_planted_regression_is_found(full: Path, candidate: Path) -> None:
    """Every run of MAXRIGHT loses 5 points of MMLU: 0, 0, 0 spread, so sure; over all twelve recipes it is 1.25 points."""
    change(candidate, "questions-maxright-*", "scores.json", score("mmlu/acc", -0.05))
    made = run(full, candidate)
    assert made.exit_code == 1
    assert row(made, "maxright", "mmlu/acc").verdict == compare.WORSE
    assert row(made, "maxright", "mmlu/acc").worsening == pytest.approx(0.05)
    assert row(made, "maxright at λ = 0.25", "mmlu/acc").verdict == compare.WORSE
    assert row(made, "all 12 recipes", "mmlu/acc").worsening == pytest.approx(0.0125)
    assert row(made, "mix", "mmlu/acc").verdict == compare.IDENTICAL
    assert view.headline(made).startswith("Regression: mmlu/acc of ")


def test_the_mirror_image_is_better(full: Path, candidate: Path) -> None:
    change(candidate, "questions-maxright-*", "scores.json", score("mmlu/acc", -0.05))
    made = run(candidate, full)
    assert made.exit_code == 0
    assert row(made, "maxright", "mmlu/acc").verdict == compare.BETTER


def test_worse_within_tolerance_passes_until_the_gate_says_otherwise(full: Path, candidate: Path) -> None:
    """Half a point of MMLU on every run is sure and small: 1 point is tolerated, 0.2 points are not."""
    change(candidate, "questions-*", "scores.json", score("mmlu/acc", -0.005))
    made = run(full, candidate)
    assert (made.exit_code, row(made, "all 12 recipes", "mmlu/acc").verdict) == (0, compare.SMALL)
    assert run(full, candidate, metrics={"mmlu/acc": {"tolerance": 0.002}}).exit_code == 1
    assert run(full, candidate, metrics={"mmlu/acc": {"tolerance": 0.002, "gate": False}}).exit_code == 0


def test_noise_is_no_regression_and_says_what_could_still_be(full: Path, candidate: Path) -> None:
    """MMLU of λ = 0.5 moves by +3, −3 and +1.5 points by seed: mean +0.5 points, and 4.303 · 3.12 / √3 either way."""
    for seed, by in ((0, 0.03), (1, -0.03), (2, 0.015)):
        change(candidate, f"questions-mix-l0.5-s{seed}", "scores.json", score("mmlu/acc", by))
    made = run(full, candidate)
    one = row(made, "mix at λ = 0.5", "mmlu/acc")
    assert (made.exit_code, one.verdict) == (0, compare.SAME)
    assert one.could_be_worse_by == pytest.approx(4.30265 * 0.031225 / math.sqrt(3) - 0.005, abs=1e-4)
    assert "could still be 7.3 points worse" in view.verdict(one)
    strict = run(full, candidate, metrics={"*/acc": {"unseen": 0.005}})
    assert strict.exit_code == 3
    assert "cannot exclude a worsening of 0.005" in strict.suites[0].inconclusive[0]


def test_a_front_that_moves_back(full: Path, candidate: Path) -> None:
    """f_SFT of every run rises by 0.2: every point moves up, each method's area shrinks, by 0.2 of 2.08 of the box or less."""
    change(candidate, "m*-l*-s*", "scores.json", lambda found: score("f_sft/held_out", 0.2)(found))
    made = run(full, candidate)
    assert row(made, "mix", "f_sft/held_out").worsening == pytest.approx(0.2)
    assert row(made, "mix", "hypervolume").verdict == compare.WORSE
    assert 0 < row(made, "mix", "hypervolume").worsening < 0.2 / 2.08
    assert any("Of 12 recipes, 6 ended worse" in note for note in made.suites[0].notes)


# ---- the words of reports --------------------------------------------------------------------------------------------

# MMLU of Mix less that of Sequential by seed, as shares of 1; 1 point is tolerated.
SHIFTS = {
    "better": (0.2, 0.2, 0.201),
    "worse": (-0.2, -0.2, -0.201),
    "worse, though by less than is tolerated": (-0.005, -0.005, -0.005),
    "same: no seed differs": (0.0, 0.0, 0.0),
    "same: 4.303 · 0.001 / √3 = 0.0025 around 0 is within 0.01": (0.001, -0.001, 0.0),
    "unclear: 4.303 · 0.1 / √3 = 0.25 around 0": (0.1, -0.1, 0.0),
    "unclear: two seeds": (0.2, 0.2),
}


def set_scores(folder: Path, method: str, values: Sequence[float]) -> None:
    for seed, value in enumerate(values):
        path = folder / "jobs" / f"questions-{method}-l0.5-s{seed}" / "scores.json"
        write_json(path, read_json(path) | {"mmlu/acc": {"value": value, "n": 400, "standard_error": 0.02}})
        (path.parent / "samples.jsonl").unlink(missing_ok=True)


@pytest.mark.parametrize("case", SHIFTS)
def test_a_pair_has_one_word_in_a_report_and_here(
    case: str, new_writer: type[Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """Mix against Sequential in a report is Mix here, against a base whose Mix has Sequential's figures."""
    shifts, word = SHIFTS[case], case.split(":")[0].split(",")[0]
    own = [0.5 + 0.01 * seed for seed in range(len(shifts))]
    moved = [value + shift for value, shift in zip(own, shifts, strict=True)]
    folders = []
    for name, of_mix in (("base", own), ("candidate", moved)):
        made = new_writer(tmp_path / name, "made")
        folder = fill_suite(made, methods=("sequential", "mix"), seeds=range(len(shifts)), lambdas=(0.5,))
        set_scores(folder, "sequential", own)
        set_scores(folder, "mix", of_mix)
        folders.append(folder)
    tables = Findings(Results(find_suites(folders[1])[0]))
    mix, sequential = (next(one for one in tables.recipes if one.method == name) for name in ("mix", "sequential"))
    made = run(*folders)
    one = row(made, "mix at λ = 0.5", "mmlu/acc")
    assert (one.word, tables.verdicts.between(mix, sequential, "mmlu/acc").word) == (word, word)
    assert_told_everywhere(made, one)


def assert_told_everywhere(made: Comparison, one: Row) -> None:
    """See that a row's word leads its verdict on the terminal, in Markdown, JSON and JUnit."""
    told = view.verdict(one)
    assert told.lstrip("✗✓ ").startswith(one.word)
    assert f"| {told} |" in view.as_markdown(made)
    (found,) = (
        entry
        for entry in view.as_dict(made)["suites"][0]["comparisons"]
        if (entry["recipes"], entry["metric"]) == (one.name, one.metric)
    )
    assert found["word"] == one.word
    assert f"{one.metric} of {one.name}: {told}" in html.unescape(junit.as_xml(made))
    first = next(line for line in view.headlines(made.suites[0]) if line.metric == one.metric)
    screen = Console(width=300, record=True, file=io.StringIO())
    view.show(made, screen)
    shown = [line for line in screen.export_text().splitlines() if first.metric in line and first.name in line]
    assert any(view.verdict(first) in line for line in shown)


def test_every_verdict_has_a_word(full: Path, candidate: Path) -> None:
    """Across all kinds of rows, words are those of reports, `different` and `not comparable`."""
    change(candidate, "questions-maxright-*", "scores.json", score("mmlu/acc", -0.05))
    rows = [one for gate in ({}, {"seeds": 4}) for one in run(full, candidate, **gate).suites[0].rows]
    allowed = {"better", "worse", "same", "unclear", compare.DIFFERENT, compare.REFUSED}
    assert {one.word for one in rows} <= allowed
    assert {"worse", "same", "unclear"} <= {one.word for one in rows}


# ---- what cannot be told ---------------------------------------------------------------------------------------------


def one_seed(new_writer: type[Any], fill_suite: Callable[..., Path], root: Path) -> Path:
    return fill_suite(new_writer(root, "made"), seeds=(0,))


def test_one_seed_is_inconclusive_unless_nothing_moved(
    new_writer: type[Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    base, other = (one_seed(new_writer, fill_suite, tmp_path / name) for name in ("base", "other"))
    assert run(base, other).exit_code == 0
    change(other, "questions-mix-*", "scores.json", score("mmlu/acc", -0.3))
    made = run(base, other)
    assert made.exit_code == 3
    assert made.suites[0].inconclusive == ("mmlu/acc: not enough data",)
    assert "(1 and 1 seeds)" in view.verdict(row(made, "mix", "mmlu/acc"))


def edit_suite(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    info = read_json(folder / "suite.json")
    edit(info["suite"])
    write_json(folder / "suite.json", info)


def test_another_beta_compares_everything_but_f_dpo(full: Path, candidate: Path) -> None:
    edit_suite(candidate, lambda suite: suite["objectives"].update(beta=0.2))
    made = run(full, candidate)
    assert made.exit_code == 3
    refused = {one.metric for one in made.suites[0].rows if one.verdict == compare.REFUSED}
    assert refused == {"f_dpo/held_out", "ideal_distance", "hypervolume"}
    assert row(made, "mix", "f_dpo/held_out").reason == "objectives.beta: 0.1 → 0.2"
    assert run(full, candidate, metrics={name: {"gate": False} for name in refused}).exit_code == 0


@pytest.mark.parametrize(
    ("file", "edit", "metrics", "reason"),
    [
        (
            "spec.json",
            lambda spec: spec["data"].update(preference="sha256:bb"),
            {"f_dpo/held_out"},
            "data of preference",
        ),
        ("scores.json", lambda found: found["f_sft/held_out"].update(n=32), {"f_sft/held_out"}, "rows: 64 → 32"),
        (
            "spec.json",
            lambda spec: spec["settings"].update(model={"dtype": "bfloat16"}),
            {"f_dpo/held_out", "f_sft/held_out"},
            "model.dtype: None → bfloat16",
        ),
    ],
)
def test_objectives_compare_on_the_same_rows_and_dtype_only(
    full: Path, candidate: Path, file: str, edit: Callable[[dict[str, Any]], Any], metrics: set[str], reason: str
) -> None:
    change(candidate, "m*-l*-s*", file, edit)
    made = run(full, candidate)
    refused = [one for one in made.suites[0].rows if one.name == "mix" and one.verdict == compare.REFUSED]
    assert {one.metric for one in refused} - {"ideal_distance", "hypervolume"} == metrics
    assert reason in next(one for one in refused if one.metric in metrics).reason
    assert made.exit_code == 3


def test_training_on_more_rows_compares_where_the_held_out_rows_stand_apart(full: Path, candidate: Path) -> None:
    """With a split of their own they stay the same rows; without one they are the rows after those trained on."""
    base = candidate.parent / "base"
    shutil.copytree(candidate, base)
    for test_split, verdict in (("test", compare.IDENTICAL), (None, compare.REFUSED)):
        for folder, rows in ((base, 100), (candidate, 200)):
            source = {"rows": rows, "train_split": "train", "test_split": test_split, "evaluation_rows": 64}
            edit_suite(folder, lambda suite, source=source: suite["data"].update(instruction=source))
        one = row(run(base, candidate), "mix", "f_sft/held_out")
        assert one.verdict == verdict
    assert one.reason == "data.instruction.rows: 100 → 200"


def test_a_reference_of_another_seed_makes_no_figure_of_worth_comparable(full: Path, candidate: Path) -> None:
    """All runs of a side learn from it, so that its luck is in no spread over seeds: neither an alarm nor a pass."""
    change(candidate, "sft-optimum-s0", "spec.json", lambda spec: spec["labels"].update(seed=7))
    change(candidate, "mix-*", "scores.json", score("f_sft/held_out", 1.0))
    made = run(full, candidate)
    assert made.exit_code == 3
    assert {one.verdict for one in made.suites[0].rows if one.gates} == {compare.REFUSED}
    assert row(made, "mix", "mmlu/acc").reason == "reference.seed: 0 → 7"
    assert row(made, "mix", "training_seconds").verdict == compare.IDENTICAL


def test_seconds_beside_other_work_have_no_verdict(full: Path, candidate: Path) -> None:
    """Half as fast again in every seed, but five other workers used the machine: that is in the seconds, too."""

    def beside_others(content: dict[str, Any]) -> None:
        entry = content["training_seconds"]
        content["training_seconds"] = entry | {"value": 1.5 * entry["value"], "shared_machine": True}

    change(candidate, "mix-*", "measurements.json", beside_others)
    made = row(run(full, candidate), "mix", "training_seconds")
    assert made.reason == "measured beside other work on the same machine (candidate)"
    assert made.verdict == compare.REFUSED


def test_cost_compares_on_the_same_hardware_only_and_does_not_gate(full: Path, candidate: Path) -> None:
    change(candidate, "mix-*", "spec.json", lambda spec: spec["environment"].update(workers=2))
    made = run(full, candidate)
    assert made.exit_code == 0
    assert row(made, "mix", "training_seconds").reason == "workers: 1 → 2"
    change(candidate, "mix-*", "spec.json", lambda spec: spec["environment"].update(workers=1, devices=2))
    assert row(run(full, candidate), "mix", "training_seconds").reason == "devices: 1 → 2"
    assert run(full, candidate, metrics={"training_seconds": {"gate": True}}).exit_code == 3


def test_scores_compare_by_the_same_judge_and_questions_only(full: Path, candidate: Path) -> None:
    change(candidate, "judged-*", "spec.json", lambda spec: spec["settings"].update(orders="single"))
    change(candidate, "questions-*", "spec.json", lambda spec: spec["settings"].update(lm_eval={"shots": 5}))
    made = run(full, candidate)
    assert row(made, "mix", "win_rate/rule").reason == "settings.orders: None → single"
    assert row(made, "mix", "mmlu/acc").reason == "settings.lm_eval.shots: None → 5"


def test_a_score_that_is_gone_is_inconclusive(full: Path, candidate: Path) -> None:
    shutil.rmtree(candidate / "jobs" / "questions-mix-l0.5-s0")
    made = run(full, candidate)
    assert made.exit_code == 3
    assert "the candidate is not complete: questions-mix-l0.5-s0 missing" in made.suites[0].inconclusive[0]


def test_a_failed_candidate_is_inconclusive(full: Path, candidate: Path) -> None:
    failed = {"schema": 1, "outcome": "failed", "message": "the loss is not finite at step 7"}
    change(candidate, "mix-l0.5-s*", "status.json", lambda status: status.update(failed))
    made = run(full, candidate)
    assert made.exit_code == 3
    assert made.suites[0].inconclusive[0] == "the candidate has no complete run of mix at λ = 0.5"


def test_smoke_runs_measure_nothing(full: Path, candidate: Path) -> None:
    info = read_json(candidate / "suite.json")
    write_json(candidate / "suite.json", info | {"smoke": True})
    made = run(full, candidate)
    assert made.exit_code == 3
    assert "a smoke run measures nothing" in made.suites[0].inconclusive[0]


def test_suites_are_matched_by_name(full: Path, candidate: Path, new_writer: type[Any], tmp_path: Path) -> None:
    """Roots compare what they have in common; two single suites compare whatever they are called."""
    extra = new_writer(candidate.parent, "extra")
    extra.run("mix", 0.5, 0)
    extra.finish()
    made = run(full.parent, candidate.parent)
    assert ([suite.name for suite in made.suites], made.notes) == (
        ["made"],
        ("Only in the candidate, not compared: extra.",),
    )
    edit = read_json(candidate / "suite.json")
    write_json(candidate / "suite.json", edit | {"name": "renamed"})
    assert run(full, candidate).notes == ("Suites of different names: made against renamed.",)
    with pytest.raises(InputError, match="have no suite in common: made against extra, renamed"):
        run(full, candidate.parent)


# ---- toys ------------------------------------------------------------------------------------------------------------


def test_a_toy_that_draws_nothing_needs_no_seeds(tmp_path: Path) -> None:
    """Mix ends 10 % further from f_SFT's minimum, beyond the 1 % that is tolerated; ALRIGHT with one seed cannot be told."""
    base, other = ROOT / "results" / "toy.bench", tmp_path / "toy"
    zipfile.ZipFile(base).extractall(other)
    assert run(base, other).exit_code == 0

    def worsen(job: str) -> None:
        (path,) = other.glob(f"jobs/{job}-l0.5-*/samples.jsonl")
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text(
            "".join(json.dumps(one | {"f_sft": one["f_sft"] * 1.1}) + "\n" for one in lines), encoding="utf-8"
        )

    worsen("alright")
    assert run(base, other).exit_code == 3
    worsen("mix")
    made = run(base, other)
    assert made.exit_code == 1
    assert [(one.name, one.metric) for one in made.suites[0].regressions] == [("mix at λ = 0.5", "f_sft")]


# ---- what is written -------------------------------------------------------------------------------------------------


def test_the_command(full: Path, candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code, last line, Markdown for a pull request, and GitHub's step summary, to which it is added."""
    summary, out = tmp_path / "summary.md", tmp_path / "new" / "compare.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    change(candidate, "questions-maxright-*", "scores.json", score("mmlu/acc", -0.05))
    result = CliRunner().invoke(app, ["compare", str(full), str(candidate), "--out", str(out)])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].endswith("Exit code 1.")
    text = out.read_text(encoding="utf-8")
    assert text.startswith("# bench compare: regression\n")
    assert "| mmlu/acc | maxright | 56.1 % | 51.1 % | −5.00 points |" in text
    assert summary.read_text(encoding="utf-8") == f"before\n{text}\n"


def test_a_place_that_cannot_be_written_is_bad_input(full: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the Markdown cannot be written"):
        view.write(run(full, full), tmp_path)


def test_json_for_machines(full: Path, candidate: Path) -> None:
    change(candidate, "questions-maxright-*", "scores.json", score("mmlu/acc", -0.05))
    result = CliRunner().invoke(app, ["compare", str(full), str(candidate), "--json"])
    made = json.loads(result.stdout)
    assert (made["schema"], made["outcome"], made["exit_code"]) == (1, "regression", 1)
    told = {(one["recipes"], one["metric"]): one for one in made["suites"][0]["comparisons"]}
    one = told["maxright", "mmlu/acc"]
    assert (one["verdict"], one["seeds"]) == ("worse", {"shared": 3, "base": 3, "candidate": 3})
    assert one["difference"] == pytest.approx(-0.05)
    assert told["mix", "mmlu/acc"]["p_worse"] is None


def test_names_from_outside_break_no_table(
    new_writer: type[Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """A method called `a|b<script>` stays text in one cell."""
    base, other = (
        fill_suite(new_writer(tmp_path / name, "made"), methods=("a|b<script>", "mix"), lambdas=(0.5,)) for name in "bc"
    )
    change(other, "mix-l0.5-s*", "scores.json", score("f_sft/held_out", 1.0))
    text = view.as_markdown(run(base, other))
    assert "<script>" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {8}


def test_it_runs_without_torch_and_bad_input_is_exit_code_2(full: Path, tmp_path: Path) -> None:
    """An import of torch would fail here; a missing folder and a wrong gate are one line each."""
    code = "import sys; sys.modules['torch'] = None; from bench.cli.main import main; main()"
    gate = tmp_path / "gate.yaml"
    gate.write_text("levle: 1\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "compare", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    good, missing, wrong = (
        bench(str(full), str(full)),
        bench(str(full), str(tmp_path / "none")),
        bench(str(full), str(full), "--gate", str(gate)),
    )
    assert (good.returncode, missing.returncode, wrong.returncode) == (0, 2, 2)
    assert good.stdout.splitlines()[-1].endswith("Exit code 0.")
    assert "no such folder" in missing.stderr
    assert wrong.stderr.strip().endswith(
        "gate.yaml:1: unknown key 'levle'; did you mean 'level'? known: level, metrics, seeds, suites"
    )
