"""Figures made under other conditions are refused where figures are averaged, and said so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import write_json
from bench.records.suite_record import find_suites
from report.analysis import kept
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.tables import Tables
from report.page import first_screen
from report.page.report_json import as_json
from report.page.sections import banners
from report.page.verdict import Verdict


@pytest.fixture
def folder(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> Path:
    """Write Sequential and Mix at one λ over three seeds."""
    return fill_suite(writer(), methods=("sequential", "mix"), lambdas=(0.5,))


def change(folder: Path, job: str, edit: Callable[[dict[str, Any]], Any]) -> Findings:
    """Edit a job's spec.json and read the suite again."""
    path = folder / "jobs" / job / "spec.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    edit(spec)
    write_json(path, spec)
    return Findings(Results(find_suites(folder)[0]))


def mix(tables: Tables) -> Any:
    return next(recipe for recipe in tables.recipes if recipe.method == "mix")


def test_equal_conditions_refuse_nothing(folder: Path) -> None:
    tables = Findings(Results(find_suites(folder)[0]))
    assert tables.comparable.warnings == ()
    assert mix(tables).estimate("training_seconds").n == 3


def test_costs_of_another_machine_are_left_out(folder: Path) -> None:
    """Mix takes 15 s in seed 0 and 1 % more a seed: 15.15 s in seed 1, 15.3 in seed 2, 15.225 s without seed 0."""
    tables = change(folder, "mix-l0.5-s0", lambda spec: spec["environment"]["hardware"].update(cpu="another"))
    found = mix(tables).estimate("training_seconds")
    assert (found.n, found.mean) == (2, pytest.approx(15.225))
    assert mix(tables).estimate("runtime_increase_percent").n == 2
    assert mix(tables).estimate("ideal_distance").n == 3
    assert "other hardware" in mix(tables).figures[0]["training_seconds"].reason
    assert "the costs of mix-l0.5-s0 are left out" in " ".join(tables.comparable.warnings)


def test_objectives_on_other_data_are_left_out(folder: Path) -> None:
    tables = change(folder, "mix-l0.5-s2", lambda spec: spec["data"].update(preference="sha256:bb"))
    assert mix(tables).estimate("ideal_distance").n == 2
    assert mix(tables).estimate("mmlu/acc").n == 3
    assert mix(tables).estimate("training_seconds").n == 3
    assert "the objective values of mix-l0.5-s2 are left out" in " ".join(tables.comparable.warnings)


def test_scores_by_another_judge_are_left_out(folder: Path) -> None:
    """The judge's name is the same, its settings are not."""
    tables = change(folder, "judged-mix-l0.5-s1", lambda spec: spec["settings"].update(model="gpt-x"))
    assert mix(tables).estimate("win_rate/rule").n == 2
    assert mix(tables).estimate("mmlu/acc").n == 3
    assert "judged-mix-l0.5-s1 was scored with another judge" in mix(tables).figures[1]["win_rate/rule"].reason


def test_scores_on_other_questions_are_left_out(folder: Path) -> None:
    tables = change(folder, "questions-base", lambda spec: spec["settings"].update(shots=5))
    base = tables.context[-1]
    assert (base.name, base.estimate("mmlu/acc").n) == ("base model", 0)
    assert "mmlu/acc" not in {name for one in kept.summaries(tables) for name in one.changes}


def test_other_versions_of_the_question_library_are_marked(folder: Path) -> None:
    tables = change(
        folder, "questions-mix-l0.5-s0", lambda spec: spec["environment"]["packages"].update({"lm-eval": "0.9"})
    )
    assert mix(tables).estimate("mmlu/acc").n == 3
    assert "different versions of lm-eval" in tables.comparable.warnings[0]


def test_the_report_says_so_on_top(folder: Path) -> None:
    tables = change(folder, "mix-l0.5-s0", lambda spec: spec["environment"].update(workers=4))
    warning = next(one for one in banners(tables) if one.kind == "warning")
    assert "left out of means and comparisons" in warning.text
    assert as_json(tables, Verdict(tables), first_screen.make(tables))["not_comparable"] == [warning.text]


def test_costs_that_other_code_measured_are_left_out(folder: Path) -> None:
    """A package's collector keeps its name from version 1 to 2, and measures something else: seed 0's is left out."""
    for job in ("mix-l0.5-s0", "mix-l0.5-s1", "mix-l0.5-s2"):
        version = "1" if job.endswith("s0") else "2"
        origin = {"distribution": "acme", "version": version, "source": "aa"}
        tables = change(folder, job, lambda spec, own=origin: spec.update(collectors={"peak_memory_bytes": own}))
    for job in ("sequential-l0.5-s0", "sequential-l0.5-s1", "sequential-l0.5-s2"):
        origin = {"distribution": "acme", "version": "2", "source": "aa"}
        tables = change(folder, job, lambda spec, own=origin: spec.update(collectors={"peak_memory_bytes": own}))
    assert mix(tables).estimate("peak_memory_bytes").n == 2
    assert mix(tables).estimate("training_seconds").n == 3
    assert mix(tables).figures[0]["peak_memory_bytes"].reason == (
        "not comparable: mix-l0.5-s0 was measured by other code, acme 1 (aa)"
    )
    assert "peak_memory_bytes was measured by different code: that of mix-l0.5-s0 is left out" in " ".join(
        tables.comparable.warnings
    )


def test_scores_that_other_code_gave_are_left_out(folder: Path) -> None:
    origin = {"distribution": "acme", "version": "1", "source": "aa"}
    tables = change(folder, "judged-mix-l0.5-s1", lambda spec: spec.update(plugins=[origin]))
    assert mix(tables).estimate("win_rate/rule").n == 2


def test_a_run_that_went_on_elsewhere_has_no_costs(folder: Path) -> None:
    """Its objective values are as good as ever; its seconds are of two machines."""

    def elsewhere(spec: dict[str, Any]) -> None:
        first = spec["environment"] | {"hardware": {"cpu": "another", "cores": 1, "gpus": []}}
        spec["environments"] = [first, spec["environment"]]

    tables = change(folder, "mix-l0.5-s1", elsewhere)
    seconds = mix(tables).figures[1]["training_seconds"]
    assert "mix-l0.5-s1 was made on several machines" in seconds.reason
    assert mix(tables).estimate("training_seconds").n == 2
    assert mix(tables).estimate("gap_dpo").n == 3
    assert any("went on" in words for words in tables.comparable.warnings)


def test_a_first_phase_made_elsewhere_is_not_charged(folder: Path) -> None:
    """The job whose first steps are shared ran with another number of workers."""

    def shares(spec: dict[str, Any]) -> None:
        spec["prefix"] = {"job": "sft-optimum-s1", "step": 50}

    change(folder, "sft-optimum-s1", lambda spec: spec["environment"].update(workers=8))
    tables = change(folder, "mix-l0.5-s1", shares)
    assert "several machines" in mix(tables).figures[1]["training_seconds"].reason
