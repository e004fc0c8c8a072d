"""The page in a real browser: phone and desktop, light and dark, nothing overflows, nothing is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report.build import build

LAMBDAS = (0.01, 0.25, 0.5, 0.75, 0.99)
# Text of a figure that sticks out of its drawing, or runs into another label, after the page's own font is applied.
TEXT_OUTSIDE = """() => [...document.querySelectorAll('.panel svg')].flatMap(svg => {
  const view = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < view.left - 1 || box.right > view.right + 1 || box.top < view.top - 1 || box.bottom > view.bottom + 1;
  }).map(text => text.textContent);
})"""
LABELS_OVERLAP = """() => [...document.querySelectorAll('.bars svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('[id*="xtick"] text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], place) => boxes.slice(place + 1).filter(([, b]) =>
    a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 2 && b.top < a.bottom - 2
  ).map(([other]) => [name, other]));
})"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, fill_suite: Callable[..., Path], new_writer: Any) -> Path:
    """Build the largest suite of the paper: 4 methods × 5 λ × 3 seeds."""
    phases = [[1, 5], [2, 4], [3, 3], [4, 2], [5, 1]]
    folder = fill_suite(new_writer(tmp_path_factory.mktemp("large"), "large", phases=phases), lambdas=LAMBDAS)
    build(folder)
    return folder


def opened(browser: Any, path: Path, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """Open a page from disk; return it with everything the browser complained about or asked the network for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(300_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_the_report_fits_and_is_quiet(browser: Any, large: Path, width: int, scheme: str) -> None:
    page, said = opened(browser, large / "report.html", width, scheme)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TEXT_OUTSIDE) == []
    assert page.evaluate(LABELS_OVERLAP) == []
    page.close()


def test_the_index_fits_a_phone(browser: Any, large: Path) -> None:
    page, said = opened(browser, large / "index.html", 390)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_dark_mode_draws_light_text(browser: Any, large: Path) -> None:
    """The figure's ink follows the page's: light on dark."""
    colours = {}
    for scheme in ("light", "dark"):
        page, _ = opened(browser, large / "report.html", 1440, scheme)
        colours[scheme] = page.evaluate("getComputedStyle(document.querySelector('.panel svg text')).fill")
        page.close()
    assert colours == {"light": "rgb(31, 35, 40)", "dark": "rgb(227, 231, 236)"}


def test_a_cell_leads_to_its_runs(browser: Any, large: Path) -> None:
    """The first recipe's link, reached by keyboard, scrolls to the group that lists its three seeds."""
    page, _ = opened(browser, large / "report.html", 1440)
    page.locator("#leaderboard > summary").click()
    page.locator("#leaderboard tbody th a").first.focus()
    page.keyboard.press("Enter")
    assert page.url.endswith("#runs-maxright-0_5")
    target = page.locator(":target")
    assert target.locator("tbody").first.locator("tr").count() == 3
    assert abs(page.evaluate("document.querySelector(':target').getBoundingClientRect().top")) < 900
    page.close()


def test_details_open_by_keyboard(browser: Any, large: Path) -> None:
    page, _ = opened(browser, large / "report.html", 1440)
    page.locator("#settings > summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#settings pre").is_visible()
    page.close()
