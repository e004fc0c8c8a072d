"""The tasks that people measure forgetting with, from a suite to the report, the gate and a choice, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval_mirror
import pytest
import yaml
from older_records import unseal

ROOT = Path(__file__).parent.parent
SCORES = {
    *("gsm8k/exact_match,strict-match", "gsm8k/exact_match,flexible-extract"),
    *(f"ifeval/{level}_level_{how}_acc" for level in ("prompt", "inst") for how in ("strict", "loose")),
    *("truthfulqa_mc2/acc", "hellaswag/acc", "hellaswag/acc_norm", "winogrande/acc"),
    *("wikitext/word_perplexity", "wikitext/byte_perplexity", "wikitext/bits_per_byte"),
}
SUITE: dict[str, Any] = {
    "name": "six",
    "model": {"source": "random"},
    "lora": {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]},
    "data": {
        "preference": {"source": "world", "rows": 6, "evaluation_rows": 3},
        "instruction": {"source": "world", "rows": 12, "evaluation_rows": 3},
    },
    "training": {"epochs": 1, "batch_size": {"dpo": 2, "sft": 4}, "learning_rate": 1.0e-2, "evaluate_every": 2},
    "methods": ["sequential", "mix"],
    "lambdas": [0.5],
    "evaluation": {"lm_eval": {"tasks": list(lm_eval_mirror.TASKS), "shots": 0, "limit": 3}},
}
Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a way to run the command in a folder that holds suite.yaml, the mirror and a stand-in for NLTK's data."""
    folder = tmp_path_factory.mktemp("six")
    (folder / "nltk" / "tokenizers" / "punkt_tab" / "english").mkdir(parents=True)
    lm_eval_mirror.write(folder / "mirror")
    (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE), encoding="utf-8")

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cli", *arguments]
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "NLTK_DATA": str(folder / "nltk"),
            **environment,
        }
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=variables, check=False)

    run.folder = folder  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="module")
def results(bench: Bench) -> Path:
    """Run the suite and its report; return its folder of results."""
    done = bench("run", "suite.yaml", "--results", "out", "--mirror", "mirror")
    assert done.returncode == 0, done.stdout + done.stderr
    reported = bench("report", "out")
    assert reported.returncode == 0, reported.stderr
    folder: Path = bench.folder / "out" / "six"  # type: ignore[attr-defined]
    return folder


@pytest.mark.slow
def test_the_report_has_every_metric_of_every_task(results: Path) -> None:
    report = json.loads((results / "report.json").read_text(encoding="utf-8"))
    for recipe in report["recipes"]:
        assert set(recipe["figures"]) >= SCORES
    assert {name for name, one in report["metrics"].items() if one["kind"] == "score"} == SCORES
    better = {name: report["metrics"][name]["better"] for name in SCORES}
    assert {name for name, one in better.items() if one == "lower"} == {
        one for one in SCORES if one.startswith("wikitext")
    }
    text = (results / "report.md").read_text(encoding="utf-8")
    for title in (
        "Exact match (gsm8k, strict-match) (%)",
        "Word perplexity (wikitext)",
        "Normalized accuracy (hellaswag) (%)",
    ):
        assert f"| {title} |" in text


@pytest.mark.slow
def test_a_score_that_got_worse_is_a_row_that_gates(results: Path, bench: Bench) -> None:
    """With one seed nothing is certain, so the answer is that it cannot be told; the rows are there, in their direction."""
    done = bench("compare", "out", "out", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["suites"][0]["comparisons"]
    assert {row["metric"] for row in rows if row["gates"]} >= SCORES
    changed = results.parent.parent / "worse"
    subprocess.run(["cp", "-r", str(results.parent), str(changed)], check=True)
    for file in changed.glob("six/jobs/questions-*/scores.json"):
        scores = json.loads(file.read_text(encoding="utf-8"))
        scores["wikitext/word_perplexity"]["value"] *= 2
        file.write_text(json.dumps(scores), encoding="utf-8")
        unseal(file.parent)
    done = bench("compare", "out", "worse", "--json")
    assert done.returncode == 3, done.stderr
    row = next(
        one
        for one in json.loads(done.stdout)["suites"][0]["comparisons"]
        if (one["metric"], one["recipes"]) == ("wikitext/word_perplexity", "mix at λ = 0.5")
    )
    assert row["difference"] == pytest.approx(0.693147, abs=1e-6)  # log 2: a perplexity compares by its logarithm
    assert row["verdict"] == "not enough data"


@pytest.mark.slow
def test_a_rule_for_a_name_that_several_figures_begin_with_is_refused(results: Path, bench: Bench) -> None:
    (results.parent.parent / "gate.yaml").write_text("metrics:\n  gsm8k/exact_match: {gate: true}\n", encoding="utf-8")
    done = bench("compare", "out", "out", "--gate", "gate.yaml")
    assert done.returncode == 2
    assert "gate.yaml:2: metrics.gsm8k/exact_match: more than one figure begins so" in done.stderr
    assert "gsm8k/exact_match,strict-match" in done.stderr


@pytest.mark.slow
def test_a_choice_goes_by_any_score(results: Path, bench: Bench) -> None:
    done = bench("report", "out", "--choose", "wikitext_word_perplexity <= base * 100, maximize hellaswag_acc_norm")
    assert done.returncode == 0, done.stderr
    assert "hellaswag_acc_norm" in done.stdout
    done = bench("report", "out", "--choose", "maximize hellaswag")
    assert done.returncode == 2
    assert "hellaswag could be hellaswag_acc or hellaswag_acc_norm; name one" in done.stderr


@pytest.mark.slow
def test_what_a_task_needs_is_missed_before_anything_is_trained(bench: Bench, tmp_path: Path) -> None:
    """ifeval's own code splits text with NLTK's data, which is not in an empty folder."""
    only = ("--set", "evaluation.lm_eval.tasks=[ifeval]", "--mirror", "mirror", "--results", "none")
    done = bench("run", "suite.yaml", *only, NLTK_DATA=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 2
    assert "evaluation.lm_eval.tasks: ifeval needs NLTK's data" in done.stderr.strip().splitlines()[-1]
    assert not (bench.folder / "none").exists()  # type: ignore[attr-defined]
