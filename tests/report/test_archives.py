"""Reports, comparisons and choices of archives say what they say of the same records in a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench.cli.main import app
from bench.errors import InputError
from bench.records.pack import pack
from bench.records.suite_record import find_suites
from report.analysis.gate import Gate
from report.build import build, labels
from report.compare.compare import IDENTICAL, compare

ROOT = Path(__file__).parents[2]


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def links(page: Path) -> list[str]:
    """Return where a page's links lead to, anchors of its own left out."""
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(str(value) for name, value in attrs if tag == "a" and name == "href")

    Links().feed(page.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith("#")]


@pytest.fixture(scope="module")
def archive(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the full suite into a root of its own, and build the report there; return the archive."""
    (packed,) = pack(built, tmp_path_factory.mktemp("packed") / "made.bench")
    build(packed.file.parent)
    return packed.file


def test_report_json_and_parquet_are_those_of_the_folder(built: Path, archive: Path) -> None:
    for name in ("report.json", "runs.parquet"):
        assert (archive.parent / "made" / name).read_bytes() == (built / name).read_bytes()
    assert (archive.parent / "made" / "figures" / "tradeoff.png").exists()
    assert 'href="made/report.html"' in (archive.parent / "index.html").read_text(encoding="utf-8")


def test_links_of_an_archives_report_lead_to_the_archive_and_to_no_job(built: Path, archive: Path) -> None:
    """Each exists; the folder's report does lead to jobs."""
    page = archive.parent / "made" / "report.html"
    assert sorted(links(page)) == ["../made.bench", "report.json", "report.md", "runs.parquet"]
    assert [link for link in links(page) if not (page.parent / link).exists()] == []
    assert "jobs/" not in (page.parent / "report.md").read_text(encoding="utf-8")
    assert [link for link in links(built / "report.html") if link.startswith("jobs/")]
    promise = "An answer leads to the file"
    assert promise in (built / "report.html").read_text(encoding="utf-8")
    assert promise not in page.read_text(encoding="utf-8")


def test_an_archive_of_a_toy_is_reported(tmp_path: Path) -> None:
    shutil.copy(ROOT / "results" / "toy.bench", tmp_path)
    assert bench("report", tmp_path / "toy.bench").output == f"report: {tmp_path / 'toy' / 'index.html'}\n"
    assert sorted(links(tmp_path / "toy" / "report.html")) == ["../toy.bench", "report.json", "report.md"]


def test_a_suite_is_identical_to_its_own_archive(built: Path, archive: Path) -> None:
    for base, candidate in ((built, archive), (archive, built), (archive.parent, built.parent)):
        made = compare(base, candidate, Gate())
        assert {row.verdict for suite in made.suites for row in suite.rows} == {IDENTICAL}
        assert (made.exit_code, made.notes) == (0, ())


def test_where_both_exist_the_folder_counts_and_everything_says_so(
    writer: Callable[..., Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """The archive was packed before the last job came to the folder."""
    made = writer()
    folder = fill_suite(made, methods=("sequential", "mix"), seeds=(0,), lambdas=(0.5,))
    (packed,) = pack(folder)
    made.run("maxright", 0.5, 0)
    made.finish()
    root = folder.parent
    note = "These are the records of the folder made. Archives of the same suite, not read: made.bench."
    assert bench("report", root).output == f"{note}\nreport: {root / 'index.html'}\n"
    for page in (root / "index.html", folder / "report.html", folder / "report.md"):
        assert page.read_text(encoding="utf-8").count(note) == 1
    jobs = {one["method"] for one in json.loads((folder / "report.json").read_text(encoding="utf-8"))["recipes"]}
    assert jobs == {"sequential", "mix", "maxright"}
    assert f"  {note}\n" in bench("status", root).output
    assert compare(root, root, Gate()).notes == (note,)
    # Each by its own name: no note, and the archive is what it was.
    assert note not in bench("status", folder).output
    (suite,) = find_suites(packed.file)
    assert (suite.note, any("maxright" in job for job in suite.jobs)) == ("", False)


def test_an_archives_report_never_takes_the_place_of_a_folders(
    writer: Callable[..., Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    folder = fill_suite(writer(), methods=("mix",), seeds=(0,), lambdas=(0.5,))
    (packed,) = pack(folder)
    with pytest.raises(InputError, match=r"made\.bench: its report would take the place of that of the records in"):
        build(packed.file)
    assert not (folder / "report.html").exists()
    build([folder, packed.file], tmp_path / "out")
    found = [*find_suites(folder), *find_suites(packed.file)]
    assert labels(found) == ["made", "made.bench"]
    pages = [tmp_path / "out" / label / "report.html" for label in labels(found)]
    assert [any("/jobs/" in link for link in links(page)) for page in pages] == [True, False]
    assert all((page.parent / link).exists() for page in pages for link in links(page))


def test_a_choice_from_an_archive_says_how_to_make_the_weights(archive: Path, tmp_path: Path) -> None:
    result = bench("report", archive, "--out", tmp_path, "--choose", "maximize mmlu")
    assert result.exit_code == 0
    line = f"{archive} holds no weights; make them again: bench run made --only maxright-"
    *_, take, report = result.output.splitlines()
    assert take.startswith(line)
    assert report.startswith("report: ")
    assert (tmp_path / "made" / "choice.json").exists()
