"""The page's own script in a real browser: sorting, filtering, links into folded runs; and text that tries to be code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import append_jsonl
from report.build import build

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> | a | b\n\n# no heading ![x](javascript:alert(3)) "
    "[y](javascript:alert(4)) </td></table></pre>```` $\\frac{1}{0$ \"' onmouseover=alert(5) &lt;b&gt; \u202eabc"
)
CELLS = """() => [...document.querySelectorAll('table')].every(table =>
  new Set([...table.tBodies[0].rows].map(row => row.cells.length)).size <= 1
  && [...table.tBodies[0].rows].every(row => row.cells.length === table.tHead.rows[table.tHead.rows.length - 1].cells.length))"""


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Open a tab whose complaints, dialogs and requests to a network are kept in `page.said`."""
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.set_default_timeout(300_000)
    tab.said = []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.on("dialog", lambda dialog: (tab.said.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda asked: tab.said.append(asked.url) if not asked.url.startswith("file:") else None)
    yield tab
    assert tab.said == []
    tab.close()


def column(page: Any, place: int) -> list[str]:
    """Read a column of the leaderboard's visible rows, without small print."""
    rows = page.locator("#leaderboard table").first.locator("tbody tr:visible")
    return [str(row.locator("th, td").nth(place).inner_text()).split("\n")[0] for row in rows.all()]


def test_a_click_sorts_and_another_turns_it_round(page: Any, built: Path) -> None:
    """Twelve recipes, then what is there for context: it keeps its place. Ideal distances are the third column."""
    page.goto((built / "report.html").as_uri() + "#leaderboard")
    context = column(page, 0)[12:]
    distance = page.locator("#leaderboard thead button").nth(2)
    for order, reverse in (("ascending", False), ("descending", True)):
        distance.click()
        assert page.locator("#leaderboard thead th").nth(2).get_attribute("aria-sort") == order
        values = [float(text.split(" ")[0]) for text in column(page, 2)[:12]]
        assert values == sorted(values, reverse=reverse)
        assert column(page, 0)[12:] == context
    page.locator("#leaderboard thead button").first.click()
    assert column(page, 0)[:12] == sorted(column(page, 0)[:12])
    assert page.locator("#leaderboard th[aria-sort]").count() == 1


def test_sorting_works_by_keyboard(page: Any, built: Path) -> None:
    page.goto((built / "report.html").as_uri() + "#leaderboard")
    page.locator("#leaderboard thead button").nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    ranks = [int(rank.rstrip("=")) for rank in column(page, 1)[:12]]
    assert ranks == sorted(ranks, reverse=True) and ranks[-1] == 1  # recipes that are not told apart share one


def test_filters_narrow_down_and_say_how_many_are_left(page: Any, built: Path) -> None:
    """Four methods × three λ: Mix has three recipes, Mix at λ = 0.5 is one; the four rows of context stay."""
    page.goto((built / "report.html").as_uri() + "#leaderboard")
    bar = page.locator("#leaderboard .filters").first
    method, lambda_dpo = bar.locator("select").all()
    method.select_option("mix")
    assert [name for name in column(page, 0) if name.startswith("mix")] == column(page, 0)[:3]
    assert bar.locator("output").inner_text().startswith("3 of 12 shown")
    lambda_dpo.select_option("0.5")
    assert column(page, 0)[0].replace("\N{NO-BREAK SPACE}", " ") == "mix at λ = 0.5"
    assert len(column(page, 0)) == 1 + 4
    method.select_option("")
    assert bar.locator("output").inner_text().startswith("4 of 12 shown")


def test_the_index_filters_by_suite(
    page: Any, writer: Callable[..., Any], fill_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """Two suites of two methods each: four rows, two of them the first suite's."""
    for name in ("first", "second"):
        fill_suite(writer(name), methods=("sequential", "mix"), seeds=(0,), lambdas=(0.5,))
    page.goto(build(tmp_path / "results").as_uri())
    suite = page.locator(".filters select").first
    suite.select_option("first")
    shown = page.locator("#leaderboard tbody tr:visible")
    assert [row.locator("th").inner_text() for row in shown.all()] == ["first", "first"]


def test_nothing_is_lost_without_scripts(browser: Any, built: Path) -> None:
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto((built / "report.html").as_uri())
    assert tab.locator("#leaderboard table").first.locator("tbody tr").count() == 16
    assert tab.locator(".filters").count() == 0
    tab.locator("#settings summary").click()
    assert tab.locator("#settings pre").is_visible()
    tab.close()


def test_the_policy_runs_the_pages_own_script_alone(browser: Any, built: Path) -> None:
    """A script that got into the page all the same is refused, in the element and in an attribute."""
    tab = browser.new_page()
    tab.goto((built / "report.html").as_uri())
    tab.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=trap onclick=\"window.ran = 1\">x</p>')")
    tab.locator("#trap").click()
    assert tab.evaluate("window.ran") is None
    assert tab.locator("#leaderboard thead button").count() > 5
    tab.close()


def test_print_leaves_controls_out(page: Any, built: Path) -> None:
    page.goto((built / "report.html").as_uri())
    page.emulate_media(media="print")
    assert not page.locator(".filters").first.is_visible()
    assert not page.locator(".switch").is_visible()
    assert page.locator("#goal-balanced").is_visible()


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory, new_writer: Any) -> Path:
    """Build a suite whose label, answers, subjects, judge, messages and notes all try to be code."""
    made = new_writer(tmp_path_factory.mktemp("evil"), "evil", description=EVIL, notes=[EVIL])
    made.suite["methods"] = [{"name": "mix", "label": EVIL}, {"name": "sequential", "label": None}]
    made.behind((0,))
    made.run("sequential", 0.5, 0)
    labels = {"method": EVIL, "base_method": "mix", "lambda_dpo": 0.5, "seed": 0, "phase_steps": {"dpo": 50, "sft": 50}}
    made.train("mix-s0", ["run"], labels, {"dpo": 0.4, "sft": 1.5}, 1.0)
    made.evaluate("mix-s0", 0.5, 50.0, judge="rule", answer=EVIL)
    for of in ("mix-s0", "base"):
        samples = made.folder / "jobs" / f"questions-{of}" / "samples.jsonl"
        append_jsonl(samples, [{"subject": EVIL, "id": place, "correct": place % 2} for place in range(4)])
    folder = made.job("mix-s1", "train", labels | {"seed": 1}, roles=["run"], outcome="failed")
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    (folder / "status.json").write_text(json.dumps(status | {"message": EVIL}), encoding="utf-8")
    made.finish()
    build(made.folder)
    return Path(made.folder)


def test_evil_text_runs_nothing_and_breaks_no_table(page: Any, evil: Path) -> None:
    """Answers, a method's label, a subject and a message are on the page as text; no dialog, error or request came of them."""
    page.goto((evil / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.wait_for_timeout(200)
    assert page.evaluate(CELLS)
    assert page.evaluate("document.querySelectorAll('img, iframe, object, script:not(body > script)').length") == 0
    assert page.locator("#answers td", has_text="alert(2)").count() >= 4
    hrefs = page.evaluate("[...document.querySelectorAll('a')].map(one => one.getAttribute('href'))")
    assert hrefs
    assert not [href for href in hrefs if ":" in href.split("/")[0]]
    page.locator("#leaderboard thead button").first.click()
    page.locator("#leaderboard select").first.select_option(index=1)
    page.goto((evil / "index.html").as_uri())
    assert page.evaluate(CELLS)


def test_evil_text_in_markdown_is_only_text(evil: Path) -> None:
    """Outside of fenced code: no tag but our own fold, no image but our figures, no link but to files; rows keep their cells."""
    text = (evil / "report.md").read_text(encoding="utf-8")
    text = re.sub(r"^(`{3,})yaml\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"(?<!\\)<(?!/?(?:details|summary)>)", text) == []
    assert re.findall(r"(?<!\\)!\[(?!(?:[^\]\\]|\\.)*\]\(figures/)", text) == []
    links = re.findall(r"(?<!\\)\]\(([^)]*)\)", text)
    assert links
    assert [link for link in links if not link.startswith(("figures/", "jobs/"))] == []
    assert "$" not in text
    counts: list[int] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            counts.append(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)))
        else:
            assert len(set(counts)) <= 1
            counts = []
