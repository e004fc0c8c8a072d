"""Shapes and labels for λ where there are more of them than can be told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.build import build
from report.page.panels import MARKERS, MOST_UPRIGHT, Drawer


@pytest.fixture
def many(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> Path:
    """Two methods at 30 λ."""
    return fill_suite(writer(), methods=("sequential", "mix"), seeds=(0,), lambdas=[place / 31 for place in range(1, 31)])


def drawer(folder: Path) -> Drawer:
    return Drawer(Findings(Results(find_suites(folder)[0])))


def test_each_lambda_has_a_shape_of_its_own_while_there_are_enough(full: Path) -> None:
    assert drawer(full).shapes == (("λ = 0.25", "o"), ("λ = 0.5", "s"), ("λ = 0.75", "^"))


def test_of_many_lambdas_neighbours_share_a_shape(many: Path) -> None:
    """30 λ over 12 shapes: two or three neighbours each, in order; every one is drawn with the shape that its band has."""
    made = drawer(many)
    bands = [made.band(one) for one in made.lambdas]
    assert bands == sorted(bands) and set(bands) == set(range(len(MARKERS)))
    assert {bands.count(one) for one in bands} == {2, 3}
    assert made.shapes[0] == (f"λ = {1 / 31:g} to {3 / 31:g}", "o")
    assert [marker for _, marker in made.shapes] == list(MARKERS)
    assert {one: made.marker(one) for one in made.lambdas} == {
        one: MARKERS[band] for one, band in zip(made.lambdas, bands, strict=True)
    }


def test_labels_of_bars_do_not_overlap(many: Path) -> None:
    """At 30 λ every second is labelled, upright; no two labels lie over each other."""
    import matplotlib.pyplot as plt

    made = drawer(many)
    figure, axes = plt.subplots(figsize=(3.5, 2.7), layout="constrained")
    made.bars(axes, "ideal_distance", "Ideal distance (nats)")
    figure.canvas.draw()
    boxes = [one.get_window_extent() for one in axes.get_xticklabels() if one.get_text()]
    plt.close(figure)
    assert 10 <= len(boxes) <= MOST_UPRIGHT
    assert all(one.x1 <= other.x0 + 1 for one, other in zip(boxes, boxes[1:], strict=False))


def test_a_shape_in_the_legend_hides_all_of_its_lambdas(many: Path, browser: Any, tmp_path: Path) -> None:
    build(many, tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / many.name / "report.html").as_uri())
    plot = page.locator("#end-points .plot").first
    plot.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#end-points .plot').chart")
    assert page.locator("#end-points .legend li[data-shape]").count() == len(MARKERS)
    spots = "document.querySelector('#end-points .plot').chart.spots().length"
    before = page.evaluate(spots)
    page.locator("#end-points .legend li[data-shape='0'] button").click()
    each = (before - 1) // 60  # marks of a recipe: its mean, and its seed where that is shown; the ideal point besides
    assert each in (1, 2) and page.evaluate(spots) == before - 3 * 2 * each
    page.close()
