"""A report of 1,000 runs in a real browser: small, rows drawn as they are scrolled to, anchors into rows not drawn yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROWS = "#runs .scroll.long tbody tr"


@pytest.fixture(scope="module")
def page(browser: Any, thousand: Path) -> Any:
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.set_default_timeout(300_000)
    tab.said = []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.goto((thousand / "report.html").as_uri())
    yield tab
    assert tab.said == []
    tab.close()


def test_the_page_stays_small(thousand: Path) -> None:
    assert (thousand / "report.html").stat().st_size <= 2_000_000


def test_an_anchor_leads_to_a_row_that_is_not_drawn_yet(page: Any) -> None:
    """The last recipe's runs begin at row 975; the parts around it open, and what is past it waits."""
    page.evaluate("location.hash = '#runs-sequential-turned-0_99'")
    row = page.locator("#runs-sequential-turned-0_99.found")
    row.wait_for()
    assert row.evaluate("row => row.rowIndex") == 976
    assert row.is_visible()
    head, box = (
        page.locator("#runs .scroll.long thead").bounding_box(),
        page.locator("#runs .scroll.long").bounding_box(),
    )
    assert head["y"] + head["height"] - 2 <= row.bounding_box()["y"] <= box["y"] + box["height"]
    assert 0 <= row.bounding_box()["y"] <= 900
    assert page.locator(ROWS).count() < 1052


def test_rows_are_drawn_as_they_are_scrolled_to(page: Any, thousand: Path) -> None:
    page.goto("about:blank")
    page.goto((thousand / "report.html").as_uri() + "#runs")
    page.evaluate(
        "document.querySelectorAll('#runs, #runs details').forEach(one => { if ('open' in one) one.open = true; })"
    )
    box = page.locator("#runs .scroll.long")
    box.scroll_into_view_if_needed()
    page.locator("#runs .scroll.long.drawn").wait_for()
    assert 30 < page.locator(ROWS).count() <= 200
    before = page.locator(ROWS).count()
    box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    page.locator(ROWS).nth(before + 1).wait_for(state="attached")


def test_sorting_and_filters_reach_rows_that_are_not_drawn(page: Any) -> None:
    """Mix has 5 × 25 runs, of seed 24 five; the largest ideal distance of all 1,000 comes first when sorted down."""
    bar = page.locator("#runs .filters")
    method, _, seed = bar.locator("select").all()
    method.select_option("mix")
    assert bar.locator("output").inner_text() == "125 of 1000 shown; click a header to sort"
    seed.select_option("24")
    assert bar.locator("output").inner_text().startswith("5 of 1000 shown")
    method.select_option("")
    seed.select_option("")
    bar.locator("input").fill("mix-l0.5-s7")
    assert bar.locator("output").inner_text().startswith("1 of 1000 shown")
    bar.locator("input").fill("")
    head = page.locator("#runs thead button", has_text="Ideal distance")
    head.click()
    head.click()
    page.locator("#runs th[aria-sort=descending]").wait_for()
    first = page.locator(ROWS).first
    place = head.evaluate("button => button.parentElement.cellIndex")
    # Sequential at a λ that is 1.5 times as far, in the last of 25 seeds: 0.5 · 3 · (1 + 0.1 · 23)
    assert float(first.locator("th, td").nth(place).inner_text()) == pytest.approx(0.5 * 3 * 3.3, rel=2e-3)


def test_a_row_opens_with_its_settings(page: Any) -> None:
    button = page.locator("#runs button.more").first
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    assert "measurements:" in page.locator("#runs tr.opened pre").inner_text()
    button.click()
    assert page.locator("#runs tr.opened").count() == 0


def test_without_scripts_the_first_rows_are_there(browser: Any, thousand: Path) -> None:
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto((thousand / "report.html").as_uri())
    assert tab.locator(ROWS).count() == 30
    assert str(tab.locator("#runs .rest").text_content()).startswith("Here are the first 30 of 1,050 rows")
    tab.close()
