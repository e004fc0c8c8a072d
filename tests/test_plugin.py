"""examples/plugin, installed as a stranger would: what it brings is used and found in every document, nothing changed here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from older_records import unseal

from bench.records import record, suite_record

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugin"
FIGURES = {"diversity": "Diversity", "win_rate/brevity": "brevity", "context_switches": "Context switches"}

Bench = Callable[..., subprocess.CompletedProcess[str]]


def install(source: Path, target: Path) -> None:
    """Install a copy of the package into a folder of its own; building leaves files beside the sources."""
    copy = target.with_name("copy")
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(copy)], check=True, timeout=300)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the package is installed in."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    install(PLUGIN, folder)
    return folder


@pytest.fixture(scope="module")
def bench(target: Path) -> Bench:
    """Return the command line, in a process that finds the package."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}

    def call(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        return done

    return call


@pytest.fixture(scope="module")
def results(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the package's own suite has been run and reported."""
    folder = tmp_path_factory.mktemp("results")
    bench("run", PLUGIN / "suite.yaml", "--results", folder)
    bench("report", folder)
    return folder


def jobs(results: Path) -> dict[str, record.Job]:
    (suite,) = suite_record.find_suites(results)
    return suite.jobs


@pytest.mark.slow
def test_all_it_brings_is_used_and_named_on_record(results: Path) -> None:
    """12 steps: three of SFT alone, from the SFT optimum's checkpoint, then nine on both gradients."""
    found = jobs(results)
    assert all(job.complete for job in found.values())
    made = next(job for name, job in found.items() if name.startswith("warm-mgda-l0.5-s0"))
    steps = made.rows("steps")
    assert [row["phase"] for row in steps] == [0] * 3 + [1] * 9
    assert ["gradients" in row for row in steps] == [False] * 3 + [True] * 9
    assert made.spec["prefix"]["step"] == 3
    (plugin,) = made.spec["plugins"]
    assert (plugin["distribution"], plugin["version"]) == ("bench-example", "1.0")
    assert list(made.spec["collectors"]) == ["context_switches"]
    assert made.measurements["context_switches"]["value"] >= 0
    with_code = {job.kind for job in found.values() if "plugins" in job.spec}
    assert with_code == {"train", "recipe", "diversity", "judge"}
    assert not any("plugins" in job.spec for job in found.values() if job.labels.get("base_method") == "sequential")


@pytest.mark.slow
@pytest.mark.parametrize("document", ["report.html", "report.md", "report.json"])
def test_its_figures_are_in_every_document(results: Path, document: str) -> None:
    text = (results / "plugin" / document).read_text(encoding="utf-8")
    named = FIGURES if document == "report.json" else FIGURES.values()
    assert [one for one in (*named, "warm_mgda", "scaled_dpo") if one not in text] == []


@pytest.mark.slow
def test_report_json_and_parquet_hold_what_was_measured(results: Path) -> None:
    """A recipe's mean over three seeds is that of the three jobs' scores and measurements."""
    import pandas as pd

    found = jobs(results)
    of_seeds = [job for name, job in found.items() if name.startswith("diversity-warm-mgda")]
    expected = sum(job.scores["diversity"]["value"] for job in of_seeds) / 3
    report = json.loads((results / "plugin" / "report.json").read_text(encoding="utf-8"))
    (recipe,) = (one for one in report["recipes"] if one["method"] == "warm_mgda")
    assert recipe["figures"]["diversity"]["mean"] == pytest.approx(expected)
    frame = pd.read_parquet(results / "plugin" / "runs.parquet").set_index("job")
    run = next(job for name, job in found.items() if name.startswith("warm-mgda-l0.5-s0"))
    row = frame.loc[run.id]
    assert row["diversity_share"] == of_seeds[0].scores["diversity"]["value"]
    assert row["context_switches"] == run.measurements["context_switches"]["value"]
    assert "win_rate_brevity_percent" in frame.columns


@pytest.mark.slow
def test_a_recipe_is_chosen_by_its_figures(bench: Bench, results: Path, tmp_path: Path) -> None:
    bench("report", results, "--out", tmp_path, "--choose", "context_switches >= 0, maximize diversity")
    (choice,) = tmp_path.rglob("choice.json")
    kept = json.loads(choice.read_text(encoding="utf-8"))
    assert kept["chosen"] in ("sequential at λ = 0.5", "warm_mgda at λ = 0.5")


def with_diversity(results: Path, folder: Path, value: float) -> Path:
    """Copy results and set every completion's diversity."""
    shutil.copytree(results, folder)
    for path in folder.glob("plugin/jobs/diversity-*"):
        scores, rows = record.read_json(path / "scores.json"), list(record.read_jsonl(path / "samples.jsonl"))
        scores["diversity"]["value"] = value
        record.write_json(path / "scores.json", scores)
        unseal(path)
        (path / "samples.jsonl").unlink()
        record.append_jsonl(path / "samples.jsonl", [{**row, "outcomes": {"diversity": value}} for row in rows])
    return folder


@pytest.mark.slow
def test_compare_and_its_gate_know_its_figures(bench: Bench, results: Path, tmp_path: Path) -> None:
    """A folder beside itself is no regression; 0.4 where the base has 0.9 in every completion is one, where that gates."""
    same = json.loads(bench("compare", results, results, "--json").stdout)
    assert set(FIGURES) <= {one["metric"] for suite in same["suites"] for one in suite["comparisons"]}
    better, worse = (with_diversity(results, tmp_path / name, value) for name, value in (("a", 0.9), ("b", 0.4)))
    gate = tmp_path / "gate.yaml"
    gate.write_text("metrics:\n  diversity: {gate: true}\n")
    told = json.loads(bench("compare", better, worse, "--gate", gate, "--json", code=1).stdout)
    (suite,) = told["suites"]
    assert {one["metric"] for one in suite["comparisons"] if one["verdict"] == "worse"} == {"diversity"}


@pytest.mark.slow
def test_scores_of_different_code_do_not_compare(bench: Bench, results: Path, tmp_path: Path) -> None:
    """The candidate's diversity was scored by version 2 of the package."""
    other = tmp_path / "other"
    shutil.copytree(results, other)
    for path in other.glob("plugin/jobs/diversity-*/spec.json"):
        spec = record.read_json(path)
        spec["plugins"][0]["version"] = "2.0"
        record.write_json(path, spec)
    told = json.loads(bench("compare", results, other, "--json").stdout)
    (suite,) = told["suites"]
    by_metric = {one["metric"]: one for one in suite["comparisons"] if one["level"] == "recipe"}
    assert by_metric["diversity"]["verdict"] == "not comparable"
    assert "bench-example 1.0" in by_metric["diversity"]["reason"]
    assert by_metric["win_rate/brevity"]["verdict"] == "identical"


@pytest.mark.slow
def test_an_upgrade_of_the_package_is_told_by_the_plan(results: Path, target: Path, tmp_path: Path) -> None:
    """Version 1.1 turns the method's weight round: its three runs, what is asked of them, and all that the package scored.

    Every policy's diversity and judgings count anew: base, two optima of three seeds, and three recipes of three seeds are
    16 policies, so 32 jobs; three runs of the method and three of the recipe; three generations of either: 44.
    """
    site = tmp_path / "site"
    shutil.copytree(target, site)
    (info,) = site.glob("bench_example-*.dist-info")
    metadata = info / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    method = site / "bench_example" / "method.py"
    method.write_text(
        method.read_text().replace(
            "Objective.DPO: weight, Objective.SFT: 1 - weight", "Objective.DPO: 1 - weight, Objective.SFT: weight"
        )
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-m", "bench.cli", "plan", str(PLUGIN / "suite.yaml"), "--results", str(results)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1].strip() == "44 complete jobs are stale: bench-example 1.0 → 1.1"
