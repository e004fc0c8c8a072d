"""A toy suite's report: gaps, bound, figures, and the sentences that explain them; records come from real short runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench.plan import planner
from bench.records.suite_record import SuiteRecord, find_suites
from bench.run import execute, handlers
from bench.run.context import WorkerContext
from bench.suite import yaml_file
from report.analysis.toy import ToyResults, bound, slope
from report.build import build
from report.toy.charts import short


def made(root: Path, name: str, *overrides: str, leave_out: int = 0) -> ToyResults:
    """Run a toy suite in this process, its last `leave_out` jobs left out."""
    planned = planner.make(yaml_file.load(name, overrides))
    folder = root / planned.suite.name
    folder.mkdir(parents=True)
    execute.write_suite(planned, folder)
    environment: dict[str, Any] = {"workers": 1}
    context = WorkerContext(planned.suite, folder, None, "cpu", environment, lambda message: None, lambda: False)
    for job in list(planned.jobs.values())[: len(planned.jobs) - leave_out]:
        assert handlers.run(job, context)["outcome"] == "complete"
    return ToyResults(SuiteRecord(folder, json.loads((folder / "suite.json").read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make and report Figure 2, its conflict and a short theorem side by side."""
    folder = tmp_path_factory.mktemp("toys")
    made(folder, "toy")
    made(folder, "toy_conflict")
    made(folder, "theorem_3_1", "training.horizons=[{steps: 100, seeds: 30}, {steps: 1000, seeds: 30}]")
    build(folder)
    return folder


def results(root: Path, name: str) -> ToyResults:
    return ToyResults(next(one for one in find_suites(root) if one.name == name))


def text(root: Path, name: str) -> str:
    return (root / name / "report.html").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")


def test_short() -> None:
    assert [short(value) for value in (0.05, 1.2913, 12.0, 3.26e-8, 0.0)] == [
        "0.0500",
        "1.29",
        "12.0",
        "3.3 · 10⁻⁸",
        "0.00",
    ]


def test_slope() -> None:
    """3 / √T falls with slope −½ on log-log axes; one point has no slope."""
    assert slope([100, 1000, 10_000], [3 / math.sqrt(one) for one in (100, 1000, 10_000)]) == pytest.approx(-0.5)
    assert math.isnan(slope([100], [1.0]))


def test_the_bound_by_hand(root: Path) -> None:
    """T = 100: 25 / 20 + (2 + log 99) · 4 / 20 = 2.5690, with θ* = −5, M² = ½ · 4 + ½ · 4."""
    toy = results(root, "theorem_3_1")
    (pairs,) = toy.bounds.values()
    assert [run.steps for run, _ in pairs] == [100, 1000]
    assert pairs[0][1] == pytest.approx(1.25 + (2 + math.log(99)) * 0.2, rel=1e-9)
    assert bound(pairs[0][0], 2.0) == pytest.approx(0.625 + (2 + math.log(99)) * 0.4, rel=1e-9)
    assert all(run.gap.n == 30 and run.gap.value + 2 * run.gap.error < most for run, most in pairs)
    assert results(root, "toy").bounds == {}


def test_gaps(root: Path) -> None:
    """Sequential's 0.17 and 0.41; the start's is 0.2710."""
    series = results(root, "theorem_3_1").series
    assert [run.gap.value for run in series["sequential"]] == pytest.approx([0.17, 0.41], abs=5e-3)
    assert series["sequential"][0].gap_at([0.0]) == pytest.approx(0.2710, abs=5e-5)
    assert series["maxright"][1].gap.value < 1e-5


def test_the_page_of_the_theorem(root: Path) -> None:
    page = text(root, "theorem_3_1")
    assert (
        "The gap of sequential grows, the gap of mix, alright and maxright falls from T = 100 to 1,000 steps." in page
    )
    assert "lies under the corrected bound at every T" in page
    assert "The bound of Theorem 4.1 is the corrected one" in page
    assert "θ_ref = −10" in page
    assert (root / "theorem_3_1" / "figures" / "gap.png").stat().st_size > 5000
    content = json.loads((root / "theorem_3_1" / "report.json").read_text(encoding="utf-8"))
    assert content["theorem_4_1"]["alright"][0]["bound"] == pytest.approx(2.569, abs=1e-3)
    assert len(content["runs"]) == 8


def test_the_page_of_figure_2(root: Path) -> None:
    """The printed features never oppose; Sequential's distance is the threshold's; MAXRIGHT is DPO alone."""
    page = text(root, "toy")
    assert "maxright ended closest to the ideal point: 0.0165 nats from it, where sequential is 0.0502 away." in page
    assert "never oppose each other" in page
    assert "sequential took 5,423 of 10,000 steps on DPO and 0 of 10,000 steps on SFT" in page
    assert "its distance from the ideal point comes from the threshold" in page
    assert "maxright chose DPO in all of its 20,000 steps" in page
    assert " forgets: " not in page
    assert page.count("<svg") == 6
    assert (root / "toy" / "figures" / "figure_2.png").stat().st_size > 5000
    assert "(figures/figure_2.png)" in (root / "toy" / "report.md").read_text(encoding="utf-8")


def test_the_page_of_the_conflict(root: Path) -> None:
    page = text(root, "toy_conflict")
    assert "the two gradients oppose each other" in page
    assert "sequential forgets: its SFT phase raises f_DPO from 0.0500 to 0.388." in page
    assert "where sequential is 0.391 away" in page


def test_the_index_has_a_line_and_no_leaderboard(root: Path) -> None:
    page = (root / "index.html").read_text(encoding="utf-8")
    assert 'href="toy/report.html"' in page
    assert 'id="leaderboard"' not in page


def test_partial_results_are_reported(tmp_path: Path) -> None:
    """Nothing complete; then one of five jobs missing."""
    made(tmp_path / "none", "toy", leave_out=5)
    build(tmp_path / "none")
    assert "No run is complete yet." in text(tmp_path / "none", "toy")
    made(tmp_path / "some", "toy", "training.horizons=[{steps: 50}]", leave_out=1)
    build(tmp_path / "some")
    assert "Partial results: 1 of 5 planned jobs are not complete." in text(tmp_path / "some", "toy")


@pytest.mark.parametrize(("name", "most"), [("toy", "0.0165"), ("theorem_3_1", "maxright")])
def test_the_outcome_stands_first_and_the_rest_is_folded(root: Path, browser: Any, name: str, most: str) -> None:
    """As on every report: what came out, the picture and the nearest method on the first screen, the sections a click away."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto((root / name / "report.html").as_uri())
    for selector in (".answer h2", "#top tbody tr", "#end-points svg"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + (0 if "svg" in selector else box["height"]) < 900, selector
    assert most in page.locator("#top tbody tr").first.inner_text()
    assert not page.locator("#ends table").is_visible()
    page.locator("#top a").last.click()
    page.locator("#ends table").wait_for(state="visible")
    assert page.locator("fieldset.switch").count() == 0
    page.close()


OVER = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].filter(one => one.textContent.trim());
  const boxes = texts.map(one => [one.textContent, one.getBoundingClientRect()]);
  return boxes.flatMap(([text, a], place) => boxes.slice(place + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2
  ).map(([other]) => [text, other]));
})"""


def test_no_text_of_a_picture_lies_over_another(tmp_path: Path, browser: Any) -> None:
    """The contours of opposing objectives reach every corner of a panel, so that their numbers met the legend's words."""
    build(Path(__file__).parents[3] / "results" / "toy_conflict.bench", tmp_path)
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto((tmp_path / "toy_conflict" / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.locator("svg text").count() > 100
    assert page.evaluate(OVER) == []
    page.close()
