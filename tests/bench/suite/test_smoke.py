"""A smoke keeps what a suite does and drops what it costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.plan import planner
from bench.suite import smoke, yaml_file
from bench.suite.suite import Suite, suite_folder

# Toy suites have tests of their own, in test_toy_suite.py.
SUITES = sorted(path.stem for path in suite_folder().glob("*.yaml") if isinstance(yaml_file.load(path.stem), Suite))
PAPER = ("llama3_8b", "pythia_1b_dpo_sft", "pythia_1b_max_evaluation", "pythia_1b_sft_dpo")


@pytest.mark.parametrize("name", SUITES)
def test_what_a_suite_does_stays(name: str) -> None:
    suite = yaml_file.load(name)
    small = smoke.shrink(suite)
    assert small.name == f"{name}--smoke"
    for key in ("methods", "lambdas", "phases", "order", "objectives", "lora"):
        assert getattr(small, key) == getattr(suite, key)
    assert small.reference.policy == suite.reference.policy
    assert small.model.architecture == suite.model.architecture
    assert list(small.evaluation.chosen) == list(suite.evaluation.chosen)


@pytest.mark.parametrize("name", SUITES)
def test_nothing_is_fetched_and_nobody_is_paid(name: str) -> None:
    small = smoke.shrink(yaml_file.load(name))
    assert small.smoke
    assert (small.model.source, small.model.dtype, small.model.path) == ("random", "float32", None)
    assert {small.data.preference.source, small.data.instruction.source} == {"world"}
    assert small.steps <= 12
    assert len(small.seeds) == 1
    asked = {name: one.options for name, one in small.evaluation.chosen.items()}
    if "win_rate" in asked:
        assert asked["win_rate"].judge.kind == "rule"
    if "lm_eval" in asked:
        assert asked["lm_eval"].tasks == ("world_questions",)


@pytest.mark.parametrize("name", SUITES)
def test_a_smoke_is_a_suite_again(name: str) -> None:
    """What suite.json keeps validates; only the mark `smoke`, no key, is not in it. A smoke of a smoke is itself."""
    small = smoke.shrink(yaml_file.load(name))
    again = Suite.model_validate(json.loads(json.dumps(small.model_dump(mode="json"))))
    assert again.model_copy(update={"smoke": True}) == small
    assert smoke.shrink(small) is small


def test_phases_keep_their_epochs() -> None:
    """Figure 3's first λ has phases [1, 5]: at two steps an epoch 2 DPO and 10 SFT steps of 12."""
    small = smoke.shrink(yaml_file.load("pythia_1b_dpo_sft"))
    assert small.steps == 12
    assert small.phase_steps(0.01) == {"dpo": 2, "sft": 10}


def test_a_reference_with_lengths_of_its_own_keeps_having_them() -> None:
    """6 rows in batches of 2 for 2 epochs (the suite: 24,000, 12, 6): 6 steps, on more rows than the runs' 4 pairs."""
    small = smoke.shrink(yaml_file.load("pythia_1b_dpo_sft"))
    assert (small.reference.rows, small.reference.batch_size, small.reference.epochs) == (6, 2, 2)
    reference = planner.make(small).with_role("reference")
    assert reference is not None
    assert reference.steps == 6


def test_steps_and_many_epochs_are_cut() -> None:
    """`steps` is cut to 8; 40 epochs without phases to 6 of one step (above 6 epochs there is one batch of rows)."""
    by_steps = smoke.shrink(yaml_file.load("smollm2_135m", ["training.epochs=null", "training.steps=500"]))
    assert by_steps.steps == 8
    assert smoke.shrink(yaml_file.load("smollm2_135m", ["training.epochs=40"])).steps == 6


@pytest.mark.parametrize("name", PAPER)
def test_every_setting_of_a_papers_suite_says_where_it_comes_from(name: str) -> None:
    lines = (suite_folder() / f"{name}.yaml").read_text().splitlines()
    keys = [line for line in lines if re.match(r"\s*(- )?\w+:", line)]
    assert [line for line in keys if " # " not in line] == []
    settings = [
        line
        for line in keys
        if not line.startswith(("name:", "description:")) and not line.split(" #")[0].endswith(":")
    ]
    assert len(settings) > 40
    assert [line for line in settings if not re.search(r"[#;] (paper|authors' code|assumed)$", line)] == []


def test_the_papers_numbers() -> None:
    """1,000 steps × 6 epochs (Pythia) and 1,500 × 4 (Llama): 6,000. Figure 3's reference: 24,000 / 12 × 6 = 12,000."""
    assert {yaml_file.load(name).steps for name in PAPER} == {6000}
    figure_3, figure_4 = yaml_file.load("pythia_1b_dpo_sft"), yaml_file.load("pythia_1b_max_evaluation")
    reference = planner.make(figure_3).with_role("reference")
    assert reference is not None
    assert reference.steps == 12000
    assert [method.options["max_eval_every"] for method in figure_4.methods if method.name == "maxright"] == [
        1,
        10,
        100,
        1000,
    ]
    table_1 = yaml_file.load("llama3_8b")
    assert {one: table_1.phase_steps(one)["dpo"] // 1500 for one in table_1.lambdas} == {0.25: 1, 0.5: 2, 0.75: 3}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SUITES if name != "quickstart"])
def test_a_smoke_runs_to_its_report(name: str, tmp_path: Path) -> None:
    """All jobs of the plan are complete and the report carries the banner; no network, no key."""
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("OPENAI_API_KEY", "BENCH_MIRROR")},
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "empty"),
    }
    results = tmp_path / "results"
    run = ["run", name, "--smoke", "--results", str(results), "--json", "--workers", "1"]
    for command in (run, ["report", str(results)]):
        done = subprocess.run(
            [sys.executable, "-m", "bench.cli", *command], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr[-2000:]
        if command[0] == "run":
            made = json.loads(done.stdout)
            assert made["failed"] == {}
            assert len(made["made"]) == len(planner.make(smoke.shrink(yaml_file.load(name))).jobs)
    page = (results / f"{name}--smoke" / "report.html").read_text()
    assert "smoke" in page.lower()
    assert (results / "index.html").exists()
