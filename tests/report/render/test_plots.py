"""Plots in a real browser: values by pointing and by keys, a legend that toggles, zoom, dark mode, paper, no scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OPEN = "document.querySelectorAll('main details').forEach(one => { if (one.querySelector('figure')) one.open = true; })"
ENDS = ".plot:has(.title:text-is('Where the runs end'))"


def opened(browser: Any, folder: Path, **options: Any) -> Any:
    tab = browser.new_page(viewport={"width": 1440, "height": 900}, **options)
    tab.set_default_timeout(300_000)
    tab.said = []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.goto((folder / "report.html").as_uri())
    tab.evaluate(OPEN)
    tab.locator(ENDS).first.scroll_into_view_if_needed()
    tab.locator(f"{ENDS} canvas").first.wait_for()
    return tab


@pytest.fixture
def page(browser: Any, built: Path) -> Iterator[Any]:
    tab = opened(browser, built)
    yield tab
    assert tab.said == []
    tab.close()


def chart(page: Any, code: str) -> Any:
    """Ask the plot of the end points."""
    return page.locator(ENDS).first.evaluate(f"box => {{ const chart = box.chart; return {code}; }}")


def test_pointing_tells_run_seed_and_values(page: Any) -> None:
    """MAXRIGHT at λ = 0.5: f_DPO is 0.2 + 0.01 seed + 0.6 · 0.05 · (0.9, 1, 1.1), mean 0.24; f_SFT 1.02 + 0.04."""
    at = chart(
        page,
        "(({left, top}) => [left + chart.u.valToPos(0.24, 'x'), top + chart.u.valToPos(1.06, 'y')])"
        "(chart.u.over.getBoundingClientRect())",
    )
    page.mouse.move(*at)
    words = page.locator(f"{ENDS} .tip").first.inner_text()
    assert words.startswith("maxright at λ = 0.5\nmean of 3 seeds, ± sd\nf_DPO: 0.2400 ± 0.0")
    assert "f_SFT: 1.060" in words


def test_keys_walk_through_the_points(page: Any) -> None:
    canvas = page.locator(f"{ENDS} .canvas").first
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert "sequential at λ = 0.25" in page.locator(f"{ENDS} .tip").first.inner_text()
    page.keyboard.press("ArrowRight")
    assert "seed 0" in page.locator(f"{ENDS} .tip").first.inner_text()
    page.keyboard.press("Escape")
    assert not page.locator(f"{ENDS} .tip").first.is_visible()


def test_the_legend_toggles_methods_lambdas_and_seeds(page: Any) -> None:
    """12 recipes with 3 seeds each, and the ideal point: 49 points; without Mix 37, and of one λ less 25."""
    legend = page.locator(f"figure.plots:has({ENDS}) .legend").first
    assert chart(page, "chart.spots().length") == 12 + 36 + 1
    legend.get_by_role("button", name="mix", exact=True).click()
    assert chart(page, "chart.spots().length") == 9 + 27 + 1
    legend.get_by_role("button", name="λ = 0.75").click()
    assert chart(page, "chart.spots().length") == 6 + 18 + 1
    legend.get_by_role("button", name="every seed").click()
    assert chart(page, "chart.spots().length") == 6 + 1
    assert legend.get_by_role("button", name="mix", exact=True).get_attribute("aria-pressed") == "false"


def test_dragging_zooms_and_a_button_shows_the_whole_again(page: Any) -> None:
    whole = chart(page, "chart.u.scales.x.max - chart.u.scales.x.min")
    box = page.locator(f"{ENDS} .u-over").first.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 160, steps=4)
    page.mouse.up()
    assert chart(page, "chart.u.scales.x.max - chart.u.scales.x.min") < 0.7 * whole
    page.get_by_role("button", name="whole picture").first.click()
    assert chart(page, "chart.u.scales.x.max - chart.u.scales.x.min") == pytest.approx(whole)


@pytest.mark.parametrize(("scheme", "light"), [("light", False), ("dark", True)])
def test_plots_follow_the_page_into_the_dark(browser: Any, built: Path, scheme: str, light: bool) -> None:
    """The brightest pixel of the axes' text is light on dark only."""
    tab = opened(browser, built, color_scheme=scheme)
    ink = tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()")
    found = tab.locator(f"{ENDS} canvas").first.evaluate(
        "(canvas, ink) => { const want = [1, 3, 5].map(at => parseInt(ink.slice(at, at + 2), 16));"
        "const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); let count = 0;"
        "for (let at = 0; at < data.length; at += 4) "
        "count += data[at + 3] > 240 && want.every((one, place) => Math.abs(data[at + place] - one) < 12);"
        "return count; }",
        ink,
    )
    assert found > 50
    assert (int(ink[1:3], 16) > 128) == light
    tab.close()


def test_labels_of_a_wide_suite_do_not_overlap(browser: Any, wide: Path) -> None:
    """Eight methods and five λ stand whole in the legend; bars' labels keep apart."""
    tab = opened(browser, wide)
    legend = tab.locator(f"figure.plots:has({ENDS}) .legend").first
    for words in ("λ = 0.01", "λ = 0.99", "sequential-turned", "mix-added"):
        assert legend.get_by_role("button", name=words, exact=True).is_visible()
    overlaps = tab.evaluate(
        """() => [...document.querySelectorAll('.bars svg')].flatMap(svg => {
          const boxes = [...svg.querySelectorAll('[id*="xtick"] text')].map(one => one.getBoundingClientRect());
          return boxes.flatMap((a, at) => boxes.slice(at + 1).filter(b =>
            a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 2 && b.top < a.bottom - 2));
        }).length"""
    )
    assert overlaps == 0
    assert tab.said == []
    tab.close()


def test_without_scripts_the_static_picture_is_shown(browser: Any, built: Path) -> None:
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto((built / "report.html").as_uri())
    widths = tab.evaluate("[...document.querySelectorAll('noscript img, figure img')].map(one => one.naturalWidth)")
    assert widths and all(width > 100 for width in widths)
    tab.close()
