"""The documents as a site: built strictly, every page in the menu, every link to a page and a heading, nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from lxml import html
from test_documents import loaded

ROOT = Path(__file__).parents[1]
ELSEWHERE = ("http:", "https:", "//")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    return loaded(ROOT / "docs" / "site.py")


@pytest.fixture(scope="module")
def built(site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does; the folder of its HTML."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run([sys.executable, ROOT / "docs" / "site.py", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def pages(folder: Path) -> Iterator[tuple[Path, html.HtmlElement]]:
    for path in sorted(folder.rglob("*.html")):
        yield path, html.fromstring(path.read_bytes())


def target(folder: Path, page: Path, link: str) -> tuple[Path, str]:
    """Return the file and the heading that a link of a page leads to."""
    parts = urlsplit(urljoin(f"/{page.relative_to(folder).as_posix()}", link))
    file = folder / unquote(parts.path).lstrip("/")
    return file / "index.html" if file.is_dir() else file, unquote(parts.fragment)


def test_every_link_leads_to_a_page_and_a_heading_of_it(built: Path) -> None:
    headings: dict[Path, set[str]] = {}
    seen, lost = 0, []
    for page, tree in pages(built):
        for link in tree.xpath("//@href | //@src"):
            if str(link).startswith((*ELSEWHERE, "mailto:", "data:")):
                continue
            file, heading = target(built, page, str(link))
            seen += 1
            if file.is_file() and heading and file not in headings:
                headings[file] = set(map(str, html.fromstring(file.read_bytes()).xpath("//@id")))
            if not file.is_file() or (heading and heading not in headings[file]):
                lost.append(f"{page.relative_to(built)}: {link}")
    assert lost == [] and seen > 1000


def test_no_page_loads_anything_from_elsewhere(built: Path) -> None:
    """Scripts, styles, fonts and pictures are the site's own; links that a reader may follow are no loads."""
    for page, tree in pages(built):
        loads = tree.xpath("//script/@src | //img/@src | //link[not(@rel='canonical')]/@href | //iframe/@src")
        assert [one for one in loads if str(one).startswith(ELSEWHERE)] == [], page
    for style in built.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")) == [], style


def test_every_document_is_a_page_and_in_the_menu(site: ModuleType, built: Path) -> None:
    documents = {
        path for folder in ("guide", "reference", "decisions") for path in (ROOT / "docs" / folder).glob("*.md")
    }
    documents |= {ROOT / "README.md", ROOT / "docs" / "README.md", ROOT / "docs" / "tutorial.md"}

    def paths(menu: list[tuple[str, object]]) -> Iterator[str]:
        for _, one in menu:
            yield from [one] if isinstance(one, str) else paths(one)  # type: ignore[arg-type]

    listed = list(paths(site.menu()))
    assert sorted(listed) == sorted(set(listed))
    assert {path.relative_to(ROOT).as_posix() for path in documents} <= set(listed)
    for path in listed:
        stem = path.removesuffix(".md").removesuffix("README")
        assert (built / stem / "index.html").is_file(), path


def test_the_settings_are_toml_with_the_menu_in_its_order(site: ModuleType) -> None:
    settings = tomllib.loads(site.settings([('A "b"', "a.md"), ("C", [("λ", "c/d.md")])]))
    assert settings["project"]["nav"] == [{'A "b"': "a.md"}, {"C": [{"λ": "c/d.md"}]}]
    assert settings["project"]["theme"]["font"] is False


@pytest.mark.parametrize("text", ["[lost](guide/nowhere.md)", "[lost](README.md#no-such-heading)"])
def test_a_link_that_leads_nowhere_ends_the_build(text: str, site: ModuleType, tmp_path: Path) -> None:
    """One more page is enough, with one link that is wrong."""
    path = site.stage(tmp_path / "docs")
    pages_folder = path.parent / "pages"
    for folder in ("docs", "benchmarks", "report", "suites", "examples"):
        shutil.rmtree(pages_folder / folder, ignore_errors=True)
    for page in pages_folder.rglob("*.md"):
        page.unlink()
    (pages_folder / "README.md").write_text(f"# Page\n\n{text}\n", encoding="utf-8")
    path.write_text(site.settings([("Page", "README.md")]), encoding="utf-8")
    assert site.run(path) != 0
    (pages_folder / "README.md").write_text("# Page\n\n[found](#page)\n", encoding="utf-8")
    assert site.run(path) == 0
