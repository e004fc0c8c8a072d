"""axe-core over every kind of report, at both sizes, light and dark: nothing serious or critical; no text leaves its cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from report.analysis.completions import Texts
from report.build import build

BEYOND = """() => [...document.querySelectorAll('td, th')].filter(cell => {
  const text = document.createRange();
  text.selectNodeContents(cell);
  const end = cell.getBoundingClientRect().right + 1.5;
  return cell.offsetParent && [...text.getClientRects()].some(part => part.right > end);
}).map(cell => cell.innerText)"""


@pytest.fixture
def with_text(full: Path, tmp_path: Path) -> Path:
    texts = Texts({place: (f"What is {place}? " * 40, f"It is <b>{place}</b>.\u202e") for place in range(1000)})
    build(full, tmp_path, texts=lambda _: texts)
    return tmp_path / full.name


def committed(name: str, out: Path) -> Path:
    build(Path(__file__).parents[3] / "results" / f"{name}.bench", out)
    return out / name


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return committed("toy", tmp_path)


@pytest.fixture
def theorem(tmp_path: Path) -> Path:
    return committed("theorem_3_1", tmp_path)


@pytest.mark.parametrize(
    "name", ["toy", "theorem", "quickstart", "one_seed", "half_failed", "wide", "with_text", "thousand"]
)
def test_nobody_is_kept_out(browser: Any, request: pytest.FixtureRequest, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base").AXE_FILE_PATH.read_text(encoding="utf-8")
    folder: Path = request.getfixturevalue(name)
    for width, height in ((1440, 900), (390, 844)):
        # Colours are the same at every size: of all kinds but one each size is looked at in one of them.
        for scheme in ("light", "dark") if name == "quickstart" else ("light" if width > 1000 else "dark",):
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.set_default_timeout(300_000)
            tab.goto((folder / "report.html").as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
            for box in tab.locator(".scroll.long").all():
                box.scroll_into_view_if_needed()
                box.and_(tab.locator(".drawn")).wait_for()
            tab.evaluate(axe)
            found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
            serious = [
                (one["id"], one["nodes"][0]["target"]) for one in found if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], (width, scheme)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(BEYOND) == [], (width, scheme)
            tab.close()
