"""Reports on paper: few pages, legends, no controls, nothing cut off at the right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

A4 = {"format": "A4", "margin": dict.fromkeys(("top", "bottom", "left", "right"), "12mm")}
WIDTH = 703  # CSS pixels between margins of 12 mm


def test_quickstart_takes_six_pages_at_most(browser: Any, quickstart: Path) -> None:
    tab = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="dark")
    tab.set_default_timeout(300_000)
    tab.goto((quickstart / "report.html").as_uri())
    tab.locator(".plot:not(.ready)").first.wait_for(state="detached")
    assert 2 <= len(re.findall(rb"/Type\s*/Page[^s]", tab.pdf(**A4))) <= 6
    tab.close()


@pytest.mark.parametrize("name", ["quickstart", "wide", "thousand"])
def test_paper_has_legends_no_controls_and_no_cut_columns(
    browser: Any, request: pytest.FixtureRequest, name: str
) -> None:
    """What the page does when it is printed, at the width of the paper."""
    folder: Path = request.getfixturevalue(name)
    tab = browser.new_page(viewport={"width": WIDTH, "height": 1000})
    tab.set_default_timeout(300_000)
    tab.goto((folder / "report.html").as_uri())
    tab.locator(".plot:not(.ready)").first.wait_for(state="detached")
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    cut = tab.evaluate(
        "width => [...document.querySelectorAll('table, figure, pre')].filter(one => one.offsetParent && "
        "one.getBoundingClientRect().right > width + 1)"
        ".map(one => one.closest('section, details')?.id + ' ' + one.textContent.slice(0, 40))",
        WIDTH,
    )
    assert cut == []
    assert tab.locator(".legend").first.is_visible()
    for control in (".filters", "button.more", ".legend .plain"):
        assert not any(one.is_visible() for one in tab.locator(control).all())
    tab.close()
