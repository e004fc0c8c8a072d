"""Build the documentation as a site: `make docs`, which writes build/docs/site/.

The pages are this repository's own Markdown files, where they are, so that they read the same on a code host and here. What they
link to is laid out in a folder of its own, under the same paths, and the order of the menu is that of the indexes: the sections
of docs/README.md with the pages in their tables, then the decisions. A link or a heading that is not there ends the build.

Usage: python docs/site.py [FOLDER]
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX, DECISIONS = ROOT / "docs" / "README.md", ROOT / "docs" / "decisions" / "README.md"
START = (ROOT / "README.md", INDEX, DECISIONS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md")
FOLDER = ROOT / "build" / "docs"
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)")

Menu = list[tuple[str, "str | Menu"]]
"""Titles, each with a page's path below the root or with what is below it."""


def linked(page: Path) -> Iterator[Path]:
    """Yield the files of this repository that a page leads to."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / link).resolve()
        if file.is_file():
            yield file


def pages_and_files() -> set[Path]:
    """Follow every link from where readers start; return the pages and whatever else they show or offer."""
    found: set[Path] = set()
    waiting = list(START)
    while waiting:
        file = waiting.pop()
        if file not in found and file.is_relative_to(ROOT):
            found.add(file)
            waiting += linked(file) if file.suffix == ".md" else []
    return found


def menu() -> Menu:
    """Return the menu, in the order of the indexes."""
    made: Menu = [("Start", "README.md"), ("Overview", "docs/README.md")]
    text = INDEX.read_text(encoding="utf-8")
    for title, body in re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", text, flags=re.MULTILINE):
        rows: Menu = [(name, _path(INDEX, link)) for name, link in _rows(body)]
        if rows:
            made.append((title, rows))
    decisions: Menu = [("All questions", "docs/decisions/README.md")]
    decisions += [(name, _path(DECISIONS, link)) for name, link in _rows(DECISIONS.read_text(encoding="utf-8"))]
    more: Menu = [("What changed", "CHANGELOG.md"), ("How to contribute", "CONTRIBUTING.md")]
    more += [("Measured speed", "benchmarks/RESULTS.md"), ("How it is measured", "benchmarks/README.md")]
    return [*made, ("Decisions", decisions), ("Project", more)]


def _rows(text: str) -> list[tuple[str, str]]:
    """Return the link of each row of a table: title without its marks, and target."""
    found = re.findall(r"^\|.*?\[([^\]]+)\]\(([^)#\s]+\.md)\)", text, flags=re.MULTILINE)
    return [(re.sub(r"[`\\]", "", title), link) for title, link in found]


def _path(index: Path, link: str) -> str:
    return (index.parent / link).resolve().relative_to(ROOT).as_posix()


def settings(menu_: Menu) -> str:
    """Write the builder's settings: no font, script or style from elsewhere."""
    lines = [
        "[project]",
        'site_name = "bench"',
        'site_description = "Choose a post-training recipe by measuring what each one gains, forgets and costs."',
        'docs_dir = "pages"',
        'site_dir = "site"',
        f"nav = {_toml(menu_)}",
        "",
        "[project.theme]",
        "font = false",
        'features = ["navigation.indexes", "navigation.top", "content.code.copy", "search.highlight"]',
        "",
        "[[project.theme.palette]]",
        'media = "(prefers-color-scheme: light)"',
        'scheme = "default"',
        "",
        "[[project.theme.palette]]",
        'media = "(prefers-color-scheme: dark)"',
        'scheme = "slate"',
    ]
    return "\n".join(lines) + "\n"


def _toml(menu_: Menu) -> str:
    """Write a menu as TOML, whose texts and lists are JSON's."""
    items = ((json.dumps(title, ensure_ascii=False), one) for title, one in menu_)
    return "[{}]".format(
        ", ".join(f"{{{title} = {json.dumps(one) if isinstance(one, str) else _toml(one)}}}" for title, one in items)
    )


def stage(folder: Path) -> Path:
    """Lay out pages and settings in a new folder; return the settings' file."""
    shutil.rmtree(folder, ignore_errors=True)
    for file in sorted(pages_and_files()):
        target = folder / "pages" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    path = folder / "zensical.toml"
    path.write_text(settings(menu()), encoding="utf-8")
    return path


def run(path: Path) -> int:
    """Build by a settings' file; return the builder's exit code, which a link or heading that is not there makes 1."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", path.name]
    return subprocess.run(command, cwd=path.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(run(stage(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)))
