"""The paper's figures beside a suite's own: the data's shape, the section by hand, and what is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import cut_jsonl, write_json
from bench.records.suite_record import find_suites
from bench.suite import yaml_file
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.tables import Tables
from report.build import build
from report.page import published, sections
from report.page.published import DATA, as_json

KNOWN = json.loads(DATA.read_text(encoding="utf-8"))["suites"]


@pytest.mark.parametrize("name", KNOWN)
def test_the_data_fit_the_suite_they_are_of(name: str) -> None:
    """Every method and λ is in the shipped suite; a front is one: f_DPO rises where f_SFT falls, neither below its optimum."""
    suite, known = yaml_file.load(name), KNOWN[name]
    methods = {method.name for method in suite.methods}
    objectives = known["objectives"]
    assert sorted(objectives["lambdas"]) == sorted(suite.lambdas)
    dpo, sft = objectives["front"]["dpo"], objectives["front"]["sft"]
    assert len(dpo) == len(sft) == len(suite.lambdas)
    assert dpo == sorted(dpo)
    assert sft == sorted(sft, reverse=True)
    assert objectives["optimum"]["dpo"] <= dpo[0]
    assert objectives["optimum"]["sft"] <= sft[-1]
    assert known["resources"]["method"] in methods
    for family in ("mmlu/acc", "win_rate"):
        if "scores" in known:
            assert set(known["scores"][family]) == methods
            assert {len(values) for values in known["scores"][family].values()} == {len(suite.lambdas)}
    assert all(part["origin"] for part in known.values() if isinstance(part, dict))


def by_figure(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    (found,) = find_suites(folder)
    return {(one["of"], one["figure"]): one for one in as_json(Tables(Results(found)))}


@pytest.fixture
def llama(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> Path:
    """Seed 0 of the made-up records, under the name of the suite of Table 1."""
    return fill_suite(writer("llama3_8b"), seeds=(0,))


def test_paper_and_here_side_by_side(llama: Path) -> None:
    """Table 1's MAXRIGHT at λ = 0.5 is 73.42 and 86.09; the records have 0.5 + 3 · 0.02 right answers and 50 + 3 · 5 % won.

    On training rows every objective is 0.05 below the held-out one: f* = 0.2 − 0.05 and 1.0 − 0.05; ALRIGHT at λ = 0.5 is
    0.1 · 0.9 from the ideal point: 0.2 + 0.6 · 0.09 − 0.05 and 1.0 + 0.8 · 0.09 − 0.05. Mix takes 15 s where Sequential takes 10.
    """
    found = by_figure(llama)
    expected = {
        ("maxright at λ = 0.5", "MMLU, 1-shot"): (73.42, 56.0),
        ("maxright at λ = 0.5", "Win rate (judge here: rule)"): (86.09, 65.0),
        ("DPO alone (f*)", "f_DPO"): (0.04935, 0.15),
        ("SFT alone (f*)", "f_SFT"): (1.02426, 0.95),
        ("alright at λ = 0.5", "f_DPO"): (0.3534, 0.204),
        ("alright at λ = 0.5", "f_SFT"): (1.1173, 1.022),
        ("mix", "Runtime (Eq. 57)"): (58, 50.0),
    }
    for place, (paper, here) in expected.items():
        assert (found[place]["paper"], found[place]["here"]) == (paper, pytest.approx(here)), place
    utilization = found["mix", "GPU utilization (Eq. 58)"]
    assert (utilization["paper"], utilization["here"]) == (7, None)
    assert "no GPU utilization was measured" in utilization["reason"]
    assert len(found) == 24 + 2 + 6 + 2


def test_the_section_names_the_known_differences(llama: Path) -> None:
    build(llama)
    markdown = (llama / "report.md").read_text(encoding="utf-8")
    section = markdown.split("## Beside the published figures")[1].split("\n## ")[0]
    for words in (
        "did not come from lm-eval",
        "first 3 % of the training rows",
        "is retired",
        "may lack its first phase",
    ):
        assert words in section
    assert "| 73.42 | 56.00 | 86.09 | 65.00 |" in section
    assert "| 0.04935 | 0.1500 |" in section
    assert "| up to 58 | 50.0 | up to 7 | missing \\[1\\] |" in section
    assert "Published in: paper, Table 1." in section
    page = (llama / "report.html").read_text(encoding="utf-8")
    assert '<section class="group" id="published">' in page


def test_a_smoke_shows_them_under_its_banner(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> None:
    folder = fill_suite(writer("pythia_1b_sft_dpo--smoke", smoke=True), seeds=(0,), lambdas=(0.5,))
    build(folder)
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert markdown.index("measures nothing") < markdown.index("## Beside the published figures")
    assert "Table 1" not in markdown.split("## Beside the published figures")[1].split("\n## ")[0]
    found = by_figure(folder)
    assert found["alright at λ = 0.25", "f_DPO"] | {"origin": ""} == {
        "figure": "f_DPO",
        "of": "alright at λ = 0.25",
        "unit": "nats",
        "paper": 0.43,
        "paper_words": None,
        "here": None,
        "reason": "no complete run of alright at λ = 0.25",
        "origin": "",
    }


def test_a_suite_that_reproduces_nothing_published_has_no_such_section(built: Path) -> None:
    assert "published" not in (built / "report.html").read_text(encoding="utf-8")
    assert json.loads((built / "report.json").read_text(encoding="utf-8"))["published"] == []


def test_nothing_complete_yet_is_no_error(writer: Callable[..., Any]) -> None:
    folder = writer("llama3_8b").finish(missing=["mix-l0.5-s0"])
    build(folder)
    assert all(one["here"] is None and one["reason"] for one in by_figure(folder).values())


# ---- runs that ended early -------------------------------------------------------------------------------------------


def stop(folder: Path, job: str, step: int, early: bool) -> None:
    """Put an end on a made-up run's record."""
    reason = "f_SFT = 1.00000 is within 0.0001 of its optimum 1.00000 or below" if early else "all steps taken"
    write_json(folder / "jobs" / job / "stopping.json", {"step": step, "reason": reason, "early": early})
    path = folder / "jobs" / job / "measurements.json"
    write_json(path, json.loads(path.read_text()) | {"steps": {"value": step, "unit": "steps"}})
    cut_jsonl(folder / "jobs" / job / "steps.jsonl", last_step=step)


def test_where_and_why_a_run_stopped_is_shown(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> None:
    made = writer(training={"stopping": {"rule": "authors"}})
    folder = fill_suite(made, methods=("sequential", "mix", "alright"), seeds=(0,), lambdas=(0.5,))
    stop(folder, "mix-l0.5-s0", 40, early=True)
    stop(folder, "alright-l0.5-s0", 100, early=False)
    build(folder)
    page = (folder / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert "mix-l0.5-s0 stopped at step 40: f_SFT = 1.00000 is within 0.0001 of its optimum 1.00000 or below." in page
    assert "alright-l0.5-s0 took all 100 steps; its stopping rule never applied." in page
    assert "1 of 2 joint runs ended early by the stopping rule 'authors'" in page
    assert "sequential-l0.5-s0 stopped" not in page
    cost = page.split("## Cost")[1].split("\n## ")[0]
    assert "| Recipe | Steps |" in cost
    assert "| mix at λ = 0.5 | 40 |" in cost


def test_all_in_seconds_hold_the_front(writer: Callable[..., Any]) -> None:
    """Mix, 15 s, stopped at a front of two ALRIGHT runs, 10.2 s each, and the optima, 8 s each, one of them the reference."""
    made = writer()
    made.behind((0,))
    names = [made.run("alright", one, 0) for one in (0.25, 0.5)]
    mix = made.run("mix", 0.5, 0)
    folder = made.finish()
    spec = json.loads((folder / "jobs" / mix / "spec.json").read_text())
    spec["inputs"] |= {"front_1": names[0], "front_2": names[1]}
    spec["inputs"] |= {f"optimum_{name}": f"{name}-optimum-s0" for name in ("dpo", "sft")}
    write_json(folder / "jobs" / mix / "spec.json", spec)
    (found,) = find_suites(folder)
    recipe = next(one for one in Tables(Results(found)).recipes if one.method == "mix")
    assert recipe.estimate("all_in_seconds").mean == pytest.approx(15 + 2 * 10.2 + 2 * 8)


def test_a_run_without_measured_steps_tells_them_by_its_last_evaluation(full: Path) -> None:
    """Records made before steps were a measurement: the trajectories end at step 100."""
    (found,) = find_suites(full)
    assert {run.steps.value for run in Results(found).trained} == {100.0}


def test_a_changed_suite_says_what_it_changes_and_hides_them(writer: Callable[..., Any]) -> None:
    made = writer("llama3_8b", description="Llama-3-8B on two sets.", notes=["One seed."])
    made.behind((0,))
    folder = made.finish()
    path = folder / "suite.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["changes_of_shipped"] = {"model.source": ["hub", "random"], "seeds": [[0], [0, 1, 2]]}
    write_json(path, content)
    tables = Findings(Results(find_suites(folder)[0]))
    assert published.blocks(tables) == ()
    told = [one.text for one in sections.banners(tables)]
    assert 'This is not llama3_8b as shipped: model.source "hub" → "random", seeds [0] → [0, 1, 2].' in " ".join(told)
    assert "As shipped, which this is not: One seed." in told
    assert sections._description(tables.results) == "Changed from: Llama-3-8B on two sets."
