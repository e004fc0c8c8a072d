"""A toy suite's mistakes are one line like any other suite's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import SuiteError
from bench.methods import METHODS
from bench.plan import planner
from bench.recipes import RECIPES
from bench.suite import smoke, yaml_file
from bench.suite.suite import Suite, suite_folder
from bench.suite.toy import ToySuite

TEXT = """\
name: example
problem:
  features: {chosen: [1.0], rejected: [0.0], target: [0.0], other: [1.0]}
  start: [0.0]
  reference: {steps: 3}
training:
  horizons: [{steps: 10}]
  learning_rate: 0.1
methods: [sequential, {name: mix, backward: accumulate}]
lambdas: [0.5]
"""


def load(folder: Path, text: str, *overrides: str) -> ToySuite:
    (folder / "x.yaml").write_text(text, encoding="utf-8")
    made = yaml_file.load("x.yaml", overrides)
    assert isinstance(made, ToySuite)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_key_problem_makes_a_toy_suite(folder: Path) -> None:
    made = load(folder, TEXT)
    assert made.size == "2 methods × 1 λ × 1 T"
    assert made.contents == "sequential, mix; 1 λ; T [10]"
    assert made.methods[1].options == {"backward": "accumulate"}
    assert isinstance(yaml_file.load("quickstart"), Suite)


KNOWN = ", ".join(sorted([*METHODS, *RECIPES]))
MISTAKES = {
    "a typo": (
        ("  start: [0.0]", "  strat: [0.0]"),
        "x.yaml:4: unknown key 'strat'; did you mean 'start'? known: beta, features, optimum, reference, start",
    ),
    "a key of language models": (
        ("lambdas: [0.5]", "lambdas: [0.5]\nlora: {rank: 2, alpha: 4}"),
        "x.yaml:11: unknown key 'lora'; known: description, lambdas, methods, name, notes, order, problem, retries, tracker, "
        "training",
    ),
    "unequal features": (
        ("other: [1.0]", "other: [1.0, 2.0]"),
        "x.yaml:3: problem.features: all four vectors must be equally long, one entry a parameter",
    ),
    "a start of another length": (
        ("start: [0.0]", "start: [0.0, 1.0]"),
        "x.yaml:2: problem: problem.start: must have 1 entries, as the features do; it has 2",
    ),
    "two references": (
        ("{steps: 3}", "{steps: 3, parameters: [1.0]}"),
        "x.yaml:5: problem.reference: give exactly one of 'parameters' and 'steps'",
    ),
    "one step": (
        ("{steps: 10}", "{steps: 1}"),
        "x.yaml:7: training.horizons[0].steps = 1: must be greater than or equal to 2",
    ),
    "a T twice": (
        ("[{steps: 10}]", "[{steps: 10}, {steps: 10}]"),
        "x.yaml:6: training: training.horizons: must not repeat a number of steps",
    ),
    "a threshold without phases": (
        ("backward: accumulate", "threshold: 0.1"),
        "x.yaml:9: methods[1].threshold: it ends a phase, and 'mix' has only one; leave it out",
    ),
    "an unknown method": (
        ("[sequential,", "[sequentail,"),
        f"x.yaml:9: methods[0]: unknown method 'sequentail'; did you mean 'sequential'? known: {KNOWN}",
    ),
    "a recipe": (
        ("[sequential,", "[interpolation,"),
        "x.yaml:9: methods[0]: 'interpolation' is made of adapters, which a toy problem has none of; give a method of steps",
    ),
    "paired gaps": (
        ("{name: mix, backward: accumulate}", "{name: maxright, gaps: paired}"),
        "x.yaml:9: methods[1]: 'maxright' as set here works on rows of a data set, which a toy problem has none of",
    ),
    "two equal names": (
        ("{name: mix, backward: accumulate}", "sequential"),
        "x.yaml:9: methods: two share a name; give each its own 'label'",
    ),
    "λ beyond 1": (("lambdas: [0.5]", "lambdas: [1.5]"), "x.yaml:10: lambdas[0] = 1.5: must lie in [0, 1]"),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(folder: Path, change: tuple[str, str], message: str) -> None:
    assert TEXT.count(change[0]) == 1
    with pytest.raises(SuiteError) as caught:
        load(folder, TEXT.replace(*change))
    assert str(caught.value) == message


def test_what_a_job_is_told(folder: Path) -> None:
    """T = 11 in halves: 5 steps on the first objective, 6 on the second; α = 0.1 / √11; mix keeps one of three seeds."""
    made = load(
        folder,
        TEXT,
        "training.horizons=[{steps: 11, seeds: 3}]",
        "training.schedule=over_sqrt_steps",
        "order=sft_dpo",
        "methods.1.seeds=1",
    )
    first, second = planner.make(made).jobs.values()
    assert first.settings["phases"] == [["sft", 5], ["dpo", 6]]
    assert first.settings["learning_rate"] == pytest.approx(0.1 / 11**0.5)
    assert (first.settings["seeds"], second.settings["seeds"]) == (3, 1)
    assert (first.steps, second.steps) == (33, 11)
    full = next(iter(planner.make(load(folder, TEXT, "training.phase=full")).jobs.values()))
    assert (full.settings["phases"], full.steps) == ([["dpo", 10], ["sft", 10]], 20)


@pytest.mark.parametrize("name", ["toy", "toy_conflict", "theorem_3_1"])
def test_a_smoke_only_runs_fewer_steps(name: str) -> None:
    """The steps of T and of the reference are cut 25-fold; problem, methods and λ stay; a smoke of a smoke is itself."""
    suite = yaml_file.load(name)
    small = smoke.shrink(suite)
    assert isinstance(suite, ToySuite)
    assert isinstance(small, ToySuite)
    assert (small.name, small.smoke) == (f"{name}--smoke", True)
    assert (small.methods, small.lambdas, small.problem.features) == (
        suite.methods,
        suite.lambdas,
        suite.problem.features,
    )
    assert [one.steps for one in small.training.horizons] == [one.steps // 25 for one in suite.training.horizons]
    assert smoke.shrink(small) is small


def test_toys_among_the_shipped_suites() -> None:
    found = {path.stem for path in suite_folder().glob("*.yaml") if isinstance(yaml_file.load(path.stem), ToySuite)}
    assert found == {"toy", "toy_conflict", "theorem_3_1"}
