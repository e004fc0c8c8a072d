"""Reports from start to end: files, smoke and partial results, escaping, and no torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.records.suite_record import find_suites
from report.build import build, labels
from report.render.html import POLICY
from report.render.markdown import escape, paragraph

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> | ![x](javascript:alert(3)) $\\frac{1}{0$ `"


def shown(path: Path) -> str:
    """Read a page with plain spaces, however its lines may break."""
    return path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")


class Page(HTMLParser):
    """Collect a page's tags with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_files_of_a_report(built: Path) -> None:
    for name in ("report.html", "report.md", "report.json", "figures/tradeoff.png", "../index.html"):
        assert (built / name).stat().st_size > 500
    assert "![" in (built / "report.md").read_text(encoding="utf-8")
    assert "(figures/tradeoff.png)" in (built / "report.md").read_text(encoding="utf-8")


def test_the_page_stands_alone_and_every_anchor_exists(built: Path) -> None:
    """The plotter and a script of its own, no outside source; links lead to anchors of the page or to files beside it."""
    tags = Page(built / "report.html").tags
    assert [attrs for tag, attrs in tags if tag in ("script", "link", "iframe", "object")] == [{}, {}]
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in [
        attrs for tag, attrs in tags if tag == "meta"
    ]
    identifiers = [attrs["id"] for _, attrs in tags if attrs.get("id")]
    assert len(identifiers) == len(set(identifiers))
    links = [str(attrs["href"]) for tag, attrs in tags if tag == "a"]
    assert links
    for link in links:
        assert link[1:] in identifiers if link.startswith("#") else (built / link).exists(), link


def test_figures_have_words_and_numbers(built: Path) -> None:
    """Five panels of bars, two of scores, then the strips; plots: two of objectives, four of cost, one of what is kept.

    Each has an accessible name; the data folds out below.
    """
    tags = Page(built / "report.html").tags
    drawn = [attrs for tag, attrs in tags if tag == "svg"]
    assert len(drawn) == 5 + 2 + 12 + 36
    plots = [attrs for _, attrs in tags if attrs.get("class") == "canvas"]
    assert len(plots) == 2 + 4 + 1
    assert all(attrs["role"] == "img" and len(str(attrs["aria-label"])) > 40 for attrs in plots)
    assert all(attrs["role"] == "img" and len(str(attrs["aria-label"])) > 40 for attrs in drawn)
    assert "lowest maxright at λ = 0.5: 0.0500" in str(drawn[2]["aria-label"])
    page = (built / "report.html").read_text(encoding="utf-8")
    assert "The numbers behind the figure" in page
    assert "(50,50)" in page


def test_json_for_machines(built: Path) -> None:
    content = json.loads((built / "report.json").read_text(encoding="utf-8"))
    assert (content["schema"], content["suite"], content["smoke"]) == (1, "made", False)
    assert content["verdict"]["best"] == {"method": "maxright", "lambda_dpo": 0.5}
    assert content["verdict"]["runner_up"]["verdict"] == "better"
    first = content["recipes"][0]
    assert first["figures"]["ideal_distance"]["mean"] == pytest.approx(0.05)
    assert first["figures"]["ideal_distance"]["by_seed"]["0"] == pytest.approx(0.045)
    assert first["figures"]["gpu_utilization_percent"] == {
        "mean": None,
        "sd": None,
        "low": None,
        "high": None,
        "n": 0,
        "reason": "no GPU in this machine",
        "by_seed": {"0": None, "1": None, "2": None},
    }


def test_the_same_records_give_the_same_report(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> None:
    folder = fill_suite(writer(), methods=("sequential", "mix"), seeds=(0,), lambdas=(0.5,))
    names = ("report.html", "report.md", "report.json", "index.html", "figures/tradeoff.png")
    build(folder)
    first = {name: (folder / name).read_bytes() for name in names}
    build(folder)
    assert {name: (folder / name).read_bytes() for name in names} == first


def test_out_puts_everything_elsewhere(
    writer: Callable[..., Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    folder = fill_suite(writer(), methods=("sequential", "mix"), seeds=(0,), lambdas=(0.5,))
    index = build(folder, tmp_path / "reports")
    assert index == tmp_path / "reports" / "index.html"
    assert (tmp_path / "reports" / "made" / "report.html").exists()
    assert not list(folder.glob("report.*"))
    assert 'href="made/report.html"' in index.read_text(encoding="utf-8")
    links = [str(attrs["href"]) for tag, attrs in Page(index.parent / "made" / "report.html").tags if tag == "a"]
    jobs = [link for link in links if "/jobs/" in link]
    assert jobs
    assert all((index.parent / "made" / link).exists() for link in jobs)


def test_one_suite_alone_gets_an_index_beside_its_report(
    writer: Callable[..., Any], fill_suite: Callable[..., Path]
) -> None:
    folder = fill_suite(writer(), methods=("mix",), seeds=(0,), lambdas=(0.5,))
    assert build(folder) == folder / "index.html"
    assert 'href="report.html"' in (folder / "index.html").read_text(encoding="utf-8")


def test_index_of_several_suites(writer: Callable[..., Any], fill_suite: Callable[..., Path], tmp_path: Path) -> None:
    """A line per suite; the smoke suite has its line but no place on the leaderboard."""
    fill_suite(writer("first"), methods=("sequential", "mix"), seeds=(0,), lambdas=(0.5,))
    fill_suite(writer("second--smoke", smoke=True), methods=("mix",), seeds=(0,), lambdas=(0.5,))
    page = shown(build(tmp_path / "results"))
    assert "Not enough to rank: over one seed mix at λ = 0.5 came closest to the ideal point" in page
    assert "Smoke run: it shows that the suite runs and measures nothing." in page
    assert 'href="first/report.html#runs-mix-0_5"' in page
    assert "second--smoke/report.html#" not in page


def test_several_folders_make_one_leaderboard(
    writer: Callable[..., Any], new_writer: Any, fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """Two folders hold a suite of the same name: each report stays beside its records, the index of both in the first.

    Distances are ranked inside each suite alone: two firsts, two seconds.
    """
    first = fill_suite(writer(), methods=("sequential", "mix"), seeds=(0, 1, 2), lambdas=(0.5,))
    second = fill_suite(
        new_writer(tmp_path / "b", "made"), methods=("sequential", "mix"), seeds=(0, 1, 2), lambdas=(0.5,)
    )
    index = build([first.parent, second.parent, first.parent])
    assert index == first.parent / "index.html"
    page = index.read_text(encoding="utf-8")
    for label, href in (("results/made", "made/report.html"), ("b/made", "../b/made/report.html")):
        assert f'<th scope="row"><a href="{href}">{label}</a></th>' in page
        assert (index.parent / href).exists()
    assert page.count('<tr class="best"') == 2


def test_labels_tell_suites_of_one_name_apart(writer: Callable[..., Any], new_writer: Any, tmp_path: Path) -> None:
    folders = [writer("x").finish(), new_writer(tmp_path / "b", "x").finish(), writer("y").finish()]
    records = [record for folder in folders for record in find_suites(folder)]
    assert labels(records) == ["results/x", "b/x", "y"]
    assert labels(records[:1]) == ["x"]


def test_smoke_and_notes_are_on_top(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> None:
    made = writer(smoke=True, notes=["The judge is the model itself: not a measure of quality."])
    folder = fill_suite(made, methods=("mix",), seeds=(0,), lambdas=(0.5,))
    build(folder)
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert max(text.index("measures nothing"), text.index("not a measure of quality")) < text.index(
            "No recipe can be recommended yet"
        )


def test_partial_results_say_what_is_missing(writer: Callable[..., Any]) -> None:
    """One run is complete, one failed, one has no status, one was never begun; Sequential, the baseline, is the failed one."""
    made = writer()
    made.behind((0,))
    made.run("maxright", 0.5, 0)
    made.run("sequential", 0.5, 0, outcome="failed")
    made.run("mix", 0.5, 0, outcome=None)
    folder = made.finish(missing=["alright-l0.5-s0"])
    build(folder)
    page = shown(folder / "report.html")
    total = len(made.jobs) + 1
    assert f"Partial results: of {total} planned jobs, 1 failed and 2 not finished" in page
    assert "the loss is not finite at step 7" in page
    assert "not run yet" in page
    assert "missing: no complete Sequential run at λ = 0.5, seed 0" in page
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [problem["state"] for problem in content["problems"]] == ["failed", "is not finished", "missing"]


def test_a_suite_without_any_complete_job(writer: Callable[..., Any]) -> None:
    folder = writer().finish(missing=["sft-optimum-s0", "mix-l0.5-s0"])
    build(folder)
    assert "No recipe can be recommended yet" in (folder / "report.html").read_text(encoding="utf-8")


def test_text_from_outside_is_only_text(writer: Callable[..., Any]) -> None:
    """A method's label, a description, a note and an error message that try to be markup."""
    made = writer(description=EVIL, notes=[EVIL], methods=[{"name": "mix", "label": EVIL}])
    made.behind((0,))
    labels = {"method": EVIL, "base_method": "mix", "lambda_dpo": 0.5, "seed": 0, "phase_steps": {"dpo": 50, "sft": 50}}
    made.train("mix-s0", ["run"], labels, {"dpo": 0.4, "sft": 1.5}, 1.0)
    folder = made.job("mix-s1", "train", labels | {"seed": 1}, roles=["run"], outcome="failed")
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    (folder / "status.json").write_text(json.dumps(status | {"message": EVIL}), encoding="utf-8")
    made.finish()
    build(made.folder)
    tags = Page(made.folder / "report.html").tags
    assert [attrs for tag, attrs in tags if tag == "script"] == [{}, {}]
    pictures = [str(attrs["src"]) for tag, attrs in tags if tag == "img"]
    assert pictures
    assert all((made.folder / picture).exists() and picture.startswith("figures/") for picture in pictures)
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    markdown = re.sub(r"```.*?```", "", (made.folder / "report.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(?!/?(details|summary)>)", markdown)
    assert not re.search(r"(?<!\\)!\[(?!.*\]\(figures/)", markdown)


def test_markdown_tables_keep_their_shape(built: Path) -> None:
    """Every row of a table has as many cells as its head."""
    counts = []
    for line in (built / "report.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            counts.append(len(re.findall(r"(?<!\\)\|", line)))
        elif counts:
            assert len(set(counts)) == 1
            counts = []


def test_escape() -> None:
    assert escape("costs $5 or $6") == "costs &#36;5 or &#36;6"
    assert [paragraph(text) for text in ("1. first", "- item", "+5 nats")] == [r"1\. first", r"\- item", r"\+5 nats"]
    assert paragraph("a - b") == "a - b"
    assert escape("a|b\n<c> *d* [e](f)") == r"a\|b \<c\> \*d\* \[e\](f)"


def test_no_results_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no suite"):
        build(tmp_path)


def test_reports_are_built_without_torch(full: Path, tmp_path: Path) -> None:
    """A finder that refuses torch stands first in a fresh interpreter; the report is built all the same."""
    code = (
        "import sys, pathlib\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from report.build import build\n"
        f"build(pathlib.Path({str(full)!r}), pathlib.Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "report.html").exists()
