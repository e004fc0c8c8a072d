"""Lay out the page over all suites: a line a suite, and every method's best recipe ranked inside its suite."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from report.analysis.findings import Findings
from report.analysis.load import Results, judge_of
from report.analysis.tables import RecipeResults, Tables
from report.page.present import score_shown
from report.page.verdict import Verdict
from report.render import html
from report.render.document import Cell, Column, Row, Table
from report.render.numbers import number, plus_minus, series_digits


@dataclass(frozen=True)
class Built:
    """A suite after its report was written; a toy suite has no tables and no place on the leaderboard."""

    label: str
    results: Results
    folder: Path
    headline: str
    caveat: str = ""
    tables: Findings | None = None
    verdict: Verdict | None = None

    def href(self, root: Path) -> str:
        """Return the link to its report, seen from the index's folder."""
        return quote(Path(os.path.relpath(self.folder / "report.html", root)).as_posix())


def page(built: list[Built], root: Path) -> str:
    """Return index.html, whose folder is `root`."""
    suites = []
    for one in built:
        undone, record = len(one.results.problems), one.results.record
        state = [f"{undone} of {len(record.info['jobs'])} jobs not complete"] if undone else []
        suites.append(
            {
                "name": one.label,
                "href": one.href(root),
                "summary": f"{one.headline} {one.caveat}".strip(),
                "smoke": one.results.smoke,
                "state": " · ".join([*state, *([record.note] if record.note else [])]),
            }
        )
    return html.render_index(suites=suites, leaderboard=leaderboard(built, root))


def leaderboard(built: list[Built], root: Path) -> Table | None:
    """Return each method's best recipe per suite, ranked inside its suite: distances do not compare across suites."""
    rows = []
    for one in built:
        if one.results.smoke or one.tables is None or one.verdict is None or one.verdict.best is None:
            continue
        firsts: dict[str, RecipeResults] = {}
        for recipe in one.tables.ranked:
            if recipe.estimate(one.tables.distance).n:
                firsts.setdefault(recipe.method, recipe)
        digits = series_digits([recipe.estimate(one.tables.distance).mean for recipe in firsts.values()])
        for recipe in firsts.values():
            rows.append(_row(one, recipe, digits, one.href(root)))
    if not rows:
        return None
    columns = (
        Column("Suite", numeric=False),
        Column("Rank"),
        Column("Method", numeric=False),
        Column("Best λ"),
        Column("Ideal distance (nats)"),
        Column("Scores", numeric=False),
        Column(
            "Training (s)", meaning="seconds in optimizer steps of one run; compares at equal hardware and workers only"
        ),
        Column("Runtime (%)", meaning="increase against the matching Sequential run (Eq. 57)"),
        Column("Seeds"),
    )
    notes = (
        "Each method at its best λ, in the order of mean ideal distance inside its suite; the rank is the one of its suite's "
        "leaderboard, where recipes that are not told apart share one (2=: tied; –: not enough to rank). Distances compare only "
        "inside one suite, win rates only under one judge, costs only on one machine. Smoke runs are left out.",
    )
    return Table("Every method's best recipe, suite by suite", columns, tuple(rows), notes, sortable=True)


def _scores(recipe: RecipeResults, tables: Tables) -> str:
    parts = []
    for name in tables.scores:
        found, writes = recipe.estimate(name), score_shown(name, tables)
        judge = f", judge {judge_of(name)}" if judge_of(name) else ""
        value = f"{writes.mean(found.mean, found.sd)} {writes.unit}".rstrip() if found.n else "missing"
        parts.append(f"{writes.metric.title}{judge}: {value}")
    return "; ".join(parts) or "not evaluated"


def _row(one: Built, recipe: RecipeResults, digits: int, href: str) -> Row:
    assert one.tables is not None
    ranking = one.tables.ranking
    distance, runtime = recipe.estimate(one.tables.distance), recipe.estimate("runtime_increase_percent")
    seconds, link = recipe.estimate("training_seconds"), f"{href}#{recipe.anchor}"
    lambda_dpo = "–" if recipe.lambda_dpo is None else f"{recipe.lambda_dpo:g}"
    cells = (
        Cell(one.label, link=href),
        Cell(ranking.place(recipe)),
        Cell(recipe.method, link=link),
        Cell(lambda_dpo, link=link),
        Cell(plus_minus(distance.mean, distance.sd, digits), link=link),
        Cell(_scores(recipe, one.tables), link=link),
        Cell(number(seconds.mean, series_digits([seconds.mean])), link=link)
        if seconds.n
        else Cell("missing", note=recipe.reason("training_seconds"), missing=True),
        Cell(plus_minus(runtime.mean, runtime.sd, 1, sign=True), link=link)
        if runtime.n
        else Cell("missing", note=recipe.reason("runtime_increase_percent"), missing=True),
        Cell(number(float(distance.n), 0), link=link),
    )
    tags = (("suite", one.label), ("method", recipe.method), ("λ", lambda_dpo))
    return Row(cells, "best" if recipe is ranking.winner else "", tags)
